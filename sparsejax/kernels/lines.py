"""The active blocks of a weight line by line, as the kernels for accelerators visit them.

A line is a block column of the whole weight (for ``Y = X W``) or a block row (for ``gX = gY W^T``), whatever shares
the weight is cut into. Values are stored once, by share and column; a row is read through its list of slots.
S shares, c slots a share, n = S c slots, L lines.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.topology.blocks import BlockGrid, BlockIndex


class Lines(NamedTuple):
    """Entries ``start[l]:stop[l]`` are the blocks of line l; free slots lie in no line.

    Attributes:
      start, stop: ``[L]`` int32, ascending; a line without blocks has ``start == stop``.
      slot: ``[n]`` int32, where the block of an entry is in ``values``.
      place: ``[n]`` int32, its coordinate across the line: the block row in a column, the block column in a row.
    """

    start: jax.Array
    stop: jax.Array
    slot: jax.Array
    place: jax.Array


def column_lines(index: BlockIndex, grid: BlockGrid) -> Lines:
    """One line a block column, blocks by ascending row; ``L = N / bn``."""
    order_Sc = jnp.broadcast_to(jnp.arange(index.row_order.shape[1], dtype=jnp.int32), index.row_order.shape)
    local = index.cols % grid.share_columns
    return _lines(index.column_pointers, order_Sc, local, index.rows, merge=grid.shard_axis == "rows")


def row_lines(index: BlockIndex, grid: BlockGrid) -> Lines:
    """One line a block row, blocks by ascending column; ``L = K / bk``."""
    local = index.rows % grid.share_rows
    return _lines(index.row_pointers, index.row_order, local, index.cols, merge=grid.shard_axis == "columns")


def _lines(pointers: jax.Array, order_Sc: jax.Array, local: jax.Array, place: jax.Array, *, merge: bool) -> Lines:
    """Lines of a weight from those of its shares: side by side, or ``merge``d where every share has part of a line.

    Args:
      pointers: ``[S, lines of a share + 1]``.
      order_Sc: slots of a share line by line, free slots last.
      local: ``[n]``, the line of every slot within its share.
      place: ``[n]``, the coordinate of every slot across its line.
      merge: whether line l of the weight is line l of every share.
    """
    shares, slots = order_Sc.shape
    first = jnp.arange(shares, dtype=jnp.int32)[:, None] * slots
    slot = (order_Sc + first).reshape(-1)
    start, stop = pointers[:, :-1], pointers[:, 1:]
    if shares == 1 or not merge:
        return Lines((start + first).reshape(-1), (stop + first).reshape(-1), slot, place[slot])
    # Where the part of each share begins in the merged line: behind all earlier lines and all earlier shares' parts.
    counts = stop - start
    begin = jnp.sum(start, axis=0) + jnp.cumsum(counts, axis=0) - counts
    entry = jnp.arange(slots, dtype=jnp.int32)
    line_Sc = local[slot].reshape(shares, slots)
    moved = jnp.take_along_axis(begin - start, line_Sc, axis=1) + entry
    # Free slots go nowhere; what stays 0 behind the last line is in no line.
    target = jnp.where(entry < stop[:, -1:], moved, slot.size).reshape(-1)
    merged = jnp.zeros_like(slot).at[target].set(slot, mode="drop")
    begins = jnp.sum(start, axis=0)
    return Lines(begins, begins + jnp.sum(counts, axis=0), merged, place[merged])


class StoredColumns(NamedTuple):
    """The block columns of every share in storage order; entries ``start[j]:stop[j]`` are the slots themselves.

    Attributes:
      start, stop: ``[S share_columns]`` int32, ascending.
      column: ``[S share_columns]`` int32, the block column of the whole weight.
    """

    start: jax.Array
    stop: jax.Array
    column: jax.Array


def stored_columns(index: BlockIndex, grid: BlockGrid) -> StoredColumns:
    """Columns share by share; with shares along the rows a column of the weight occurs once in each of them."""
    share = jnp.arange(grid.shards, dtype=jnp.int32)[:, None]
    pointers = index.column_pointers + share * (index.rows.shape[0] // grid.shards)
    first = share * (grid.share_columns if grid.shard_axis == "columns" else 0)
    column = first + jnp.arange(grid.share_columns, dtype=jnp.int32)
    return StoredColumns(pointers[:, :-1].reshape(-1), pointers[:, 1:].reshape(-1), column.reshape(-1))
