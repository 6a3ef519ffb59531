"""Cutting the slots of weights whose density falls, when their count is down a stair (``topology.density_path``)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from sparsejax.optim.sparse_adam import remap_state
from sparsejax.topology.blocks import BlockGrid, index_from_positions, positions_of
from sparsejax.training.recipe import Recipe, index_of, values_of, values_path, with_index, with_values
from sparsejax.training.state import TrainState


def shrink(state: TrainState, before: Recipe, after: Recipe) -> TrainState:
    """The state in the slots of ``after``: the same blocks, weights, moments and ages, fewer free slots.

    Free slots are the last of their share, so what is cut off holds nothing.

    Raises:
      ValueError: a weight would get more slots than it has.
    """
    params, topology = state.params, state.topology
    cuts: dict[str, Any] = {}
    for name, weight in after.sparse.items():
        old, new = before.sparse[name].capacity, weight.capacity
        if new > old:
            raise ValueError(f"{name}: {old} slots cannot become {new}")
        shards = weight.grid.shards

        def cut(array: jax.Array, shards: int = shards, new: int = new) -> jax.Array:
            by_share = array.reshape(array.shape[0], shards, -1, *array.shape[2:])
            return by_share[:, :, : new // shards].reshape(array.shape[0], new, *array.shape[2:])

        def cut_index(index: Any, grid: BlockGrid = weight.grid, new: int = new) -> Any:
            return index_from_positions(positions_of(index, grid)[:, : new // grid.shards], grid)

        params = with_values(params, name, cut(values_of(params, name)))
        topology = with_index(topology, name, jax.vmap(cut_index)(index_of(topology, name)))
        cuts[values_path(name)] = cut
    return dataclasses.replace(state, params=params, topology=topology, opt_state=remap_state(state.opt_state, cuts))
