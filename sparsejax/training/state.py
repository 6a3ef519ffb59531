"""Everything a run carries from step to step, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

# Nested dicts of arrays, one level a module: ``params["layers"]["attention"]["q"]["values"]``.
Tree = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The saved state of a run.

    ``step`` counts batches consumed: batch number ``step`` is the next one. A step whose loss or gradient is
    not finite consumes its batch and changes nothing else, so ``step - skipped`` optimizer updates were made.

    Attributes:
      step: int32 scalar.
      params: trainable arrays, float32.
      topology: index arrays of the sparse weights, int32.
      opt_state: the Optax state.
      skipped: int32 scalar, steps without an update since the start.
      skipped_in_row: int32 scalar, steps without an update since the last one with.
      explored: for each kind that is rewired ``[L, ceil(cells / 8)]`` uint8, one bit a place: a block was there once.
      scores: for growth rules with a memory, ``[L, S, m]`` float32 a kind; empty for the others.
    """

    step: jax.Array
    params: Tree
    topology: Tree
    opt_state: Any
    skipped: jax.Array
    skipped_in_row: jax.Array
    explored: dict[str, jax.Array]
    scores: dict[str, jax.Array]
