"""One rewiring of one weight: drop the blocks with the lowest scores, grow as many where none were.

Axes: n slots, S shares, m cells of a share, c = n / S slots of a share. Pure functions of arrays; counts are
static and the number dropped is a traced scalar, so rewiring at any rate is one compiled program (design D5).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from sparsejax.topology.blocks import BlockGrid, BlockSparse, Index, index_from_positions, positions_of
from sparsejax.topology.initial import positions_from_mask
from sparsejax.topology.scores import lowest
from sparsejax.topology.slots import gather_slots


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rewiring:
    """What a rewiring did to one weight.

    Attributes:
      index: the new topology.
      old_slot: ``[n]`` int32, for every new slot the slot its block had before, -1 where the block was
        grown now (or the slot is free). Everything stored per block moves by this map.
    """

    index: Index
    old_slot: jax.Array


def drop_count(rate: float, grid: BlockGrid, active: int, regrow_dropped: bool) -> int:
    """Blocks each share drops and grows, on the host, in integers.

    ``min(round_half_even(rate * active), active - 1, places to grow into)``, with ``active`` the blocks of the
    share. Without ``regrow_dropped`` a share can grow only where it was inactive before, and a balanced column
    no more than its own inactive places.
    """
    wanted = min(round(rate * active), active - 1)
    if regrow_dropped:
        return wanted
    if grid.balance == "column":
        counts = grid.column_counts(active)
        room = int(sum(min(count, grid.share_rows - count) for count in counts))
    else:
        room = grid.cells_per_share - active
    return min(wanted, room)


def rewire(
    index: Index,
    grid: BlockGrid,
    drop_score: jax.Array,
    grow_score: jax.Array,
    count: jax.Array | int,
    regrow_dropped: bool,
) -> Rewiring:
    """Drop the ``count`` lowest-scored blocks of each share and grow the ``count`` highest-scored inactive places.

    Under ``balance="column"`` the lowest scores of the share still decide what goes (rounding a rate per
    column would freeze small columns), each column then regrows as many as it lost.

    Args:
      index: the topology before.
      grid: the weight's grid.
      drop_score: ``[n]``, low goes first; free slots are ignored.
      grow_score: ``[S, m]``, high comes first; only inactive places are looked at.
      count: blocks to replace in each share, from ``drop_count``; may be traced.
      regrow_dropped: whether a place emptied by this rewiring may be grown again at once.
    """
    cells = grid.cells_per_share
    position_Sc = positions_of(index, grid)
    slots_Sc = jnp.arange(position_Sc.size, dtype=jnp.int32).reshape(position_Sc.shape)
    share = jax.vmap(lambda p, slot, ds, gs: _rewire_share(grid, p, slot, ds, gs, count, regrow_dropped))
    active_Sm, slot_of_cell_Sm = share(position_Sc, slots_Sc, drop_score.reshape(position_Sc.shape), grow_score)
    new_position_Sc = positions_from_mask(active_Sm, position_Sc.shape[1])
    free = new_position_Sc >= cells
    old_Sc = jnp.take_along_axis(slot_of_cell_Sm, jnp.where(free, 0, new_position_Sc), axis=1)
    old_slot = jnp.where(free, -1, old_Sc).reshape(-1)
    return Rewiring(index=index_from_positions(new_position_Sc, grid), old_slot=old_slot)


def _rewire_share(
    grid: BlockGrid,
    position_c: jax.Array,
    slot_c: jax.Array,
    drop_score_c: jax.Array,
    grow_score_m: jax.Array,
    count: jax.Array | int,
    regrow_dropped: bool,
) -> tuple[jax.Array, jax.Array]:
    """New activity ``[m]`` of one share, and the old slot of every kept cell (-1 elsewhere)."""
    cells = grid.cells_per_share
    slot_m = jnp.full((cells,), -1, jnp.int32).at[position_c].set(slot_c, mode="drop")
    score_m = jnp.zeros((cells,), drop_score_c.dtype).at[position_c].set(drop_score_c, mode="drop")
    active_m = slot_m >= 0
    by_column = (grid.share_columns, grid.share_rows)
    droppable_m = active_m
    if grid.balance == "column" and not regrow_dropped:
        room = grid.share_rows - jnp.sum(active_m.reshape(by_column), axis=1)
        within = jax.vmap(lowest)(score_m.reshape(by_column), active_m.reshape(by_column), room)
        droppable_m = within.reshape(-1)
    dropped_m = lowest(score_m, droppable_m, count)
    candidate_m = ~active_m | dropped_m if regrow_dropped else ~active_m
    if grid.balance == "column":
        lost = jnp.sum(dropped_m.reshape(by_column), axis=1)
        grown = jax.vmap(lowest)(-grow_score_m.reshape(by_column), candidate_m.reshape(by_column), lost)
        grown_m = grown.reshape(-1)
    else:
        grown_m = lowest(-grow_score_m, candidate_m, jnp.sum(dropped_m))
    kept_m = active_m & ~dropped_m
    return kept_m | grown_m, jnp.where(kept_m, slot_m, -1)


def move_values(values: jax.Array, rewiring: Rewiring) -> jax.Array:
    """``values [n, bk, bn]`` after the rewiring: kept blocks move to their new slot, grown blocks start at 0."""
    return gather_slots(values, rewiring.old_slot)


def apply(weight: BlockSparse, rewiring: Rewiring) -> BlockSparse:
    """The weight after the rewiring."""
    return BlockSparse(values=move_values(weight.values, rewiring), index=rewiring.index, grid=weight.grid)
