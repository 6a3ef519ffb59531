"""Checkpoints of earlier versions under ``grow="gradient_sum"``, which kept sums of gradients and no first gradient.

Axes: L layers, S shares, m cells of a share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from sparsejax.topology.growth import from_sums
from sparsejax.training.state import TrainState

NOTE = "holds sums of gradients alone, as earlier versions kept them: until the next rewiring they rank candidates too"


def as_saved(abstract: TrainState, saved: Mapping[str, Any] | None) -> TrainState:
    """Shapes to restore into: ``[L, S, m]`` for the sums that a checkpoint holds so.

    Args:
      abstract: shapes of the run, sums and first gradients together, ``[L, S, 2, m]``.
      saved: shapes of the checkpoint's ``scores`` by kind; None where they cannot be read.
    """
    if saved is None:
        return abstract
    scores: dict[str, Any] = {}
    for name, leaf in abstract.scores.items():
        earlier = name in saved and len(saved[name].shape) == 3
        shape = (*leaf.shape[:2], leaf.shape[3]) if earlier else leaf.shape
        scores[name] = jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=leaf.sharding)
    return dataclasses.replace(abstract, scores=scores)


def is_earlier(state: TrainState) -> bool:
    """Whether the state holds sums alone."""
    return any(memory.ndim == 3 for memory in state.scores.values())


def with_first_gradients(state: TrainState) -> TrainState:
    """The state with the sums in place of the first gradients that were not kept."""
    scores = {name: jax.jit(from_sums, out_shardings=memory.sharding)(memory) for name, memory in state.scores.items()}
    return dataclasses.replace(state, scores=scores)
