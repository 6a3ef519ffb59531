"""Other numbers of slots for the same blocks.

A run needs them when a falling density is down a stair (``topology.density_path``), and when it moves to a mesh whose
devices share out slots in other parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp

from sparsejax.models.weight_table import SparseWeight
from sparsejax.optim.sparse_adam import remap_state
from sparsejax.topology.blocks import BlockGrid, Index, index_from_positions, positions_of
from sparsejax.training.outer import Move, moved
from sparsejax.training.recipe import index_of, values_of, values_path, with_index, with_values
from sparsejax.training.state import TrainState, for_each_replica


def resize(state: TrainState, before: Mapping[str, SparseWeight], after: Mapping[str, SparseWeight]) -> TrainState:
    """The state in the slots of ``after``: the same blocks, weights, moments and ages, more or fewer free slots.

    ``before`` and ``after`` are the sparse kinds with the slots that the state has and shall have.

    Free slots are the last of their share, so what is cut off holds nothing.

    Raises:
      ValueError: a weight would get fewer slots than it has blocks.
    """
    params, topology = state.params, state.topology
    moves: dict[str, Move] = {}
    for name, weight in after.items():
        if weight.capacity < weight.count:
            raise ValueError(f"{name}: {weight.count} blocks do not fit in {weight.capacity} slots")
        if weight.capacity == before[name].capacity:
            continue
        slots = weight.capacity // weight.grid.shards
        move = partial(_move, shards=weight.grid.shards, slots=slots)
        params = with_values(params, name, move(values_of(params, name)))
        index = jax.vmap(partial(_move_index, grid=weight.grid, slots=slots))(index_of(topology, name))
        topology = with_index(topology, name, index)
        moves[values_path(name)] = move
    return dataclasses.replace(
        state,
        params=params,
        topology=topology,
        opt_state=for_each_replica(state, partial(remap_state, moves=moves))(state.opt_state),
        outer=state.outer and moved(state.outer, moves),
    )


def slots_of(weights: Mapping[str, SparseWeight]) -> dict[str, int]:
    """Slots of one layer of every kind; states with equal ones have arrays of equal shapes."""
    return {name: weight.capacity for name, weight in weights.items()}


def _move(array_Ln: jax.Array, *, shards: int, slots: int) -> jax.Array:
    """``[L, n, ...]`` with so many slots a share; new ones hold 0."""
    by_share = array_Ln.reshape(array_Ln.shape[0], shards, -1, *array_Ln.shape[2:])
    more = max(slots - by_share.shape[2], 0)
    padded = jnp.pad(by_share, ((0, 0), (0, 0), (0, more), *((0, 0) for _ in array_Ln.shape[2:])))
    return padded[:, :, :slots].reshape(array_Ln.shape[0], shards * slots, *array_Ln.shape[2:])


def _move_index(index: Index, *, grid: BlockGrid, slots: int) -> Index:
    position_Sc = positions_of(index, grid)
    more = max(slots - position_Sc.shape[1], 0)
    padded = jnp.pad(position_Sc, ((0, 0), (0, more)), constant_values=grid.cells_per_share)
    return index_from_positions(padded[:, :slots], grid)
