"""Bytes of one device: of the state by kind, read off its shardings, and of a compiled program."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

import jax

# Pattern -> kind. The first that is found in a path of ``TrainState`` counts; every kind is there.
_RULES: tuple[tuple[str, str], ...] = (
    (r"^params/layers/(attention|mlp)/", "values"),
    (r"^(topology|explored|scores)/", "indices"),
    (r"^opt_state/.*/ages/", "ages"),
    (r"^opt_state/.*/layers/(attention|mlp)/", "moments"),
    (r"^outer/", "weights and error feedback of a replica that trains apart"),
    (r"^params/", "other parameters"),
    (r"^opt_state/.*/(mu|nu|weights)/", "their moments"),
    (r"", "counters"),
)
KINDS = tuple(kind for _, kind in _RULES)


@dataclasses.dataclass(frozen=True)
class ProgramBytes:
    """What one device holds while a program runs, as its compiler says.

    Attributes:
      arguments: state, batch and tables, with the padding of their layouts.
      outputs: results that do not take the place of an argument.
      temporaries: activations, gradients, gathered weights and everything else in between, at the fullest moment.
      code: the program itself.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """All of them, which is what the device must have."""
        return self.arguments + self.outputs + self.temporaries + self.code


def state_bytes(state: Any) -> dict[str, int]:
    """Bytes of one device's part of a ``TrainState`` of placed arrays or shapes, for every name of ``KINDS``.

    Layouts may pad arrays further; a compiled program knows, see ``ProgramBytes.arguments``.
    """
    total = dict.fromkeys(KINDS, 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        kind = next(kind for pattern, kind in _RULES if re.search(pattern, name))
        total[kind] += local_bytes([leaf])
    return total


def local_bytes(leaves: Iterable[Any]) -> int:
    """Bytes of one device's parts of arrays, or shapes with a sharding; what has none is whole."""

    def shape(leaf: Any) -> tuple[int, ...]:
        sharding = getattr(leaf, "sharding", None)
        return tuple(leaf.shape) if sharding is None else sharding.shard_shape(tuple(leaf.shape))

    return sum(math.prod(shape(leaf)) * leaf.dtype.itemsize for leaf in leaves)


def program_bytes(compiled: jax.stages.Compiled, platform: str) -> ProgramBytes:
    """What a device holds while the program runs; donated arguments and the results in their place count once.

    On a TPU temporaries are what is left of the compiler's own peak, the figure it holds against the memory: its sum of
    temporaries counts buffers of loops more than once. On a CPU that sum is what is allocated.
    """
    found: Any = compiled.memory_analysis()
    arguments, outputs = found.argument_size_in_bytes, found.output_size_in_bytes - found.alias_size_in_bytes
    temporaries = found.temp_size_in_bytes
    if platform == "tpu":
        temporaries = max(found.peak_memory_in_bytes - arguments - outputs, 0)
    return ProgramBytes(int(arguments), int(outputs), int(temporaries), int(found.generated_code_size_in_bytes))
