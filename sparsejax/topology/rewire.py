"""One rewiring of one weight: some blocks go, some places get a block.

Axes: n slots, S shares, m cells of a share, c = n / S slots of a share. Pure functions of arrays; shapes are static
and the numbers dropped and grown are traced scalars, so rewiring at any rate is one compiled program (design D5).
What goes is decided first, then what may come, then what comes; ``rewire`` does all three for the plain case.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from sparsejax.topology.blocks import BlockGrid, BlockSparse, Index, index_from_positions, positions_of
from sparsejax.topology.initial import positions_from_mask
from sparsejax.topology.selection import lowest
from sparsejax.topology.slots import gather_slots


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rewiring:
    """What a rewiring did to one weight.

    Attributes:
      index: the new topology.
      old_slot: ``[n]`` int32, for every new slot the slot its block had before, -1 where the block was
        grown now (or the slot is free). Everything stored per block moves by this map.
      former_slot: ``[n]`` int32, the same, but a block dropped and grown in this very rewiring names the slot it
        had: where its old weights are, for those who keep them.
    """

    index: Index
    old_slot: jax.Array
    former_slot: jax.Array


def drop_count(rate: float, grid: BlockGrid, active: int, regrow_dropped: bool) -> int:
    """Blocks each share drops and grows, on the host, in integers.

    ``min(round_half_even(rate * active), active - 1, places to grow into)``, with ``active`` the blocks of the
    share. Without ``regrow_dropped`` a share can grow only where it was inactive before, and a balanced column
    no more than its own inactive places.

    Raises:
      ValueError: a rate outside [0, 1], or a share that cannot have that many blocks.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate={rate}: must be in [0, 1]")
    if not 1 <= active <= grid.cells_per_share:
        raise ValueError(f"active={active}: a share has 1 to {grid.cells_per_share} blocks")
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

    Args:
      index: the topology before.
      grid: the weight's grid.
      drop_score: ``[n]``, low goes first; free slots are ignored.
      grow_score: ``[S, m]``, high comes first; only inactive places are looked at.
      count: blocks to replace in each share, from ``drop_count``; may be traced.
      regrow_dropped: whether a place emptied by this rewiring may be grown again at once.

    Raises:
      ValueError: scores of another shape, or a count that is below 0 or above the blocks of a share.
    """
    slots = positions_of(index, grid).shape
    for name, score, shape in (
        ("drop_score", drop_score, (slots[0] * slots[1],)),
        ("grow_score", grow_score, (grid.shards, grid.cells_per_share)),
    ):
        if score.shape != shape:
            raise ValueError(f"{name} has shape {score.shape}: must be {shape}")
    if isinstance(count, int) and not 0 <= count <= slots[1]:
        raise ValueError(f"count={count}: a share has {slots[1]} slots")
    everything = jnp.ones(drop_score.shape, bool)
    dropped = choose_drops(index, grid, drop_score, everything, count, regrow_dropped)
    return regrow(index, grid, dropped, grow_score, count, regrow_dropped)


def choose_drops(
    index: Index,
    grid: BlockGrid,
    score: jax.Array,
    allowed: jax.Array,
    count: jax.Array | int,
    regrow_dropped: bool,
) -> jax.Array:
    """The slots whose blocks go, ``[n]`` bool: the ``count`` lowest-scored allowed ones of each share.

    Under ``balance="column"`` the lowest scores of the share still decide (rounding a rate per column would freeze
    small columns); but a column that cannot regrow what it just lost gives up no more than it has inactive places.

    Args:
      index: the topology before.
      grid: the weight's grid.
      score: ``[n]``, low goes first, ties by the lower index.
      allowed: ``[n]`` bool, blocks that may go. Free slots never do.
      count: for every share, or ``[S]``; if fewer are allowed, all of them go.
      regrow_dropped: whether a place emptied by this rewiring may be grown again at once.
    """
    position_Sc = positions_of(index, grid)
    shape = position_Sc.shape

    def share(position_c: jax.Array, score_c: jax.Array, allowed_c: jax.Array, count: jax.Array) -> jax.Array:
        allowed_c = allowed_c & (position_c < grid.cells_per_share)
        if grid.balance == "column" and not regrow_dropped:
            allowed_c = allowed_c & _within_room(grid, position_c, score_c)
        return lowest(score_c, allowed_c, count)

    counts_S = jnp.broadcast_to(jnp.asarray(count, jnp.int32), shape[:1])
    dropped_Sc = jax.vmap(share)(position_Sc, score.reshape(shape), allowed.reshape(shape), counts_S)
    return dropped_Sc.reshape(-1)


def candidates(index: Index, grid: BlockGrid, dropped: jax.Array, regrow_dropped: bool) -> jax.Array:
    """The places a block may be grown in, ``[S, m]`` bool: inactive before, or dropped now if ``regrow_dropped``."""
    position_Sc = positions_of(index, grid)
    stays_Sc = ~dropped.reshape(position_Sc.shape) if regrow_dropped else jnp.ones(position_Sc.shape, bool)
    return ~_mask_of_cells(grid, position_Sc, stays_Sc)


def regrow(
    index: Index,
    grid: BlockGrid,
    dropped: jax.Array,
    grow_score: jax.Array,
    count: jax.Array | int,
    regrow_dropped: bool,
) -> Rewiring:
    """Take ``dropped`` away and grow the ``count`` highest-scored candidate places of each share.

    Under ``balance="column"`` each column regrows exactly as many as it lost, whatever ``count`` says: its counts
    are static. Otherwise growing fewer than were dropped leaves free slots, growing more fills free slots.

    Args:
      index: the topology before.
      grid: the weight's grid.
      dropped: ``[n]`` bool, from ``choose_drops``.
      grow_score: ``[S, m]``, high comes first, ties by the lower index; see ``candidates`` for where.
      count: for every share, or ``[S]``; never more than there are slots left.
      regrow_dropped: whether a place emptied by this rewiring may be grown again at once.
    """
    cells = grid.cells_per_share
    position_Sc = positions_of(index, grid)
    slot_Sc = jnp.arange(position_Sc.size, dtype=jnp.int32).reshape(position_Sc.shape)
    dropped_Sc = dropped.reshape(position_Sc.shape)
    former_Sm = jax.vmap(lambda p, slot: jnp.full((cells,), -1, jnp.int32).at[p].set(slot, mode="drop"))(
        position_Sc, slot_Sc
    )
    kept_Sm = _mask_of_cells(grid, position_Sc, ~dropped_Sc)
    candidate_Sm = ~kept_Sm if regrow_dropped else former_Sm < 0
    counts_S = jnp.broadcast_to(jnp.asarray(count, jnp.int32), position_Sc.shape[:1])
    if grid.balance == "column":
        by_column = (grid.shards, grid.share_columns, grid.share_rows)
        lost_SC = jnp.sum(((former_Sm >= 0) & ~kept_Sm).reshape(by_column), axis=2)
        pick = jax.vmap(jax.vmap(lowest))
        low_Sm = _reversed(grow_score).reshape(by_column)
        grown_Sm = pick(low_Sm, candidate_Sm.reshape(by_column), lost_SC).reshape(-1, cells)
    else:
        grown_Sm = jax.vmap(lowest)(_reversed(grow_score), candidate_Sm, counts_S)
    new_position_Sc = positions_from_mask(kept_Sm | grown_Sm, position_Sc.shape[1])

    def of_new_slots(slot_Sm: jax.Array) -> jax.Array:
        free = new_position_Sc >= cells
        found = jnp.take_along_axis(slot_Sm, jnp.where(free, 0, new_position_Sc), axis=1)
        return jnp.where(free, -1, found).reshape(-1)

    old_Sm = jnp.where(kept_Sm, former_Sm, -1)
    return Rewiring(index_from_positions(new_position_Sc, grid), of_new_slots(old_Sm), of_new_slots(former_Sm))


def move_values(values: jax.Array, rewiring: Rewiring) -> jax.Array:
    """``values [n, bk, bn]`` after the rewiring: kept blocks move to their new slot, grown blocks start at 0."""
    return gather_slots(values, rewiring.old_slot)


def apply(weight: BlockSparse, rewiring: Rewiring) -> BlockSparse:
    """The weight after the rewiring."""
    return BlockSparse(values=move_values(weight.values, rewiring), index=rewiring.index, grid=weight.grid)


def _reversed(score: jax.Array) -> jax.Array:
    """Scores in the opposite order; the complement of an integer, unlike its negative, never overflows."""
    return ~score if jnp.issubdtype(score.dtype, jnp.integer) else -score


def _mask_of_cells(grid: BlockGrid, position_Sc: jax.Array, chosen_Sc: jax.Array) -> jax.Array:
    """``[S, m]`` bool, True at the positions of the chosen slots; free slots lie outside."""
    nothing = jnp.zeros((grid.cells_per_share,), bool)
    return jax.vmap(lambda position, chosen: nothing.at[position].set(chosen, mode="drop"))(position_Sc, chosen_Sc)


def _within_room(grid: BlockGrid, position_c: jax.Array, score_c: jax.Array) -> jax.Array:
    """``[c]`` bool: the lowest scores of each column, as many as the column has inactive places."""
    cells = grid.cells_per_share
    by_column = (grid.share_columns, grid.share_rows)
    active_m = jnp.zeros((cells,), bool).at[position_c].set(True, mode="drop").reshape(by_column)
    score_m = jnp.zeros((cells,), score_c.dtype).at[position_c].set(score_c, mode="drop").reshape(by_column)
    room = grid.share_rows - jnp.sum(active_m, axis=1)
    within_m = jax.vmap(lowest)(score_m, active_m, room).reshape(-1)
    return within_m.at[position_c].get(mode="fill", fill_value=False)
