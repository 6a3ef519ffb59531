"""What a device sends in a collective, by the ring algorithms; plain Python.

Payload is the whole array: gathered, to be scattered, summed, or passed on. For a group of n and a payload of P bytes a
device sends::

    all-gather, reduce-scatter, all-to-all  P (n - 1) / n       all-reduce  2 P (n - 1) / n       permute  P
"""

from __future__ import annotations

import dataclasses

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "permute", "all-to-all")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind over the same mesh axes, in one run of a program, as one device sees them.

    Attributes:
      kind: one of ``KINDS``.
      axes: mesh axes that a group of devices spans.
      group: devices of a group.
      count: how often it runs.
      payload: bytes of the whole arrays, see the module.
      sent: bytes that one device sends.
    """

    kind: str
    axes: tuple[str, ...]
    group: int
    count: int
    payload: int
    sent: int


def sent_bytes(kind: str, group: int, payload: int) -> int:
    """Bytes that one of ``group`` devices sends for a payload; see the module."""
    if kind == "permute":
        return payload
    return (2 if kind == "all-reduce" else 1) * payload * (group - 1) // group
