"""What a TPU compiler says when a program needs more memory than a device has."""

from __future__ import annotations

import dataclasses
import re

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"
# Depending on what finds out: the check of the whole program, or the assignment of buffers.
_USED = (
    re.compile(rf"required for HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm"),
)


@dataclasses.dataclass(frozen=True)
class Overflow:
    """A program that does not fit: the bytes that it would take, and those that programs may take on this device."""

    needed: int
    available: int


def read_overflow(message: str) -> Overflow | None:
    """What a compiler's error says about memory; None if it is about something else."""
    found = next(filter(None, (pattern.search(message) for pattern in _USED)), None)
    if "RESOURCE_EXHAUSTED" not in message or found is None:
        return None
    return Overflow(_bytes(found[1], found[2]), _bytes(found[3], found[4]))


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])
