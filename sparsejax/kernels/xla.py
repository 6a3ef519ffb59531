"""Block-sparse products in plain XLA: a loop over block columns that visits active blocks only.

The input is turned feature-major once, ``x_f [K/bk, bk, T]``: the slab of a block row is then contiguous, a gather
of slabs is a plain copy, and every product is a matrix product of that slab with a block, the layout CPU matrix
libraries run fastest. With column j holding the blocks (row_1, V_1) .. (row_R, V_R), and Y_j, dY_j its bn columns:

    forward    Y_j^T       = [V_1; ..; V_R]^T  [x_f[row_1]; ..; x_f[row_R]]       [bn, T]
    backward   dV_r        = x_f[row_r] dY_j                                      [bk, bn]
               dX[row_r]  += dY_j V_r^T                                           [T, bk]

There is no padding to a maximum count, no copy of the weight in row order, no dense weight or gradient. Y is
written and dY is read token-major, column by column, so neither is held a second time. Two forms differ in where a
column's blocks come from:

* ``balance="column"``: counts are static, so a column's R blocks are one gather and one product. Counts differ by
  at most one, hence at most two scans.
* any topology: counts are data. An inner loop runs from ``column_pointers[j]`` to ``column_pointers[j + 1]`` in
  chunks of U slots, U a constant that makes the product's inner width at least ``_CHUNK_WIDTH``.

Free slots lie outside every pointer range: no forward reads them, their gradient stays the 0 it starts as.

On a CPU what is not a product decides the time, so how arrays are moved is spelled the way XLA makes one pass of it:
a transpose of two axes, and slices without the wrapping of negative indices, because a slice, a sum and an update at
one index become one loop in place only if their indices are the same expression.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from sparsejax.kernels.implementation import Implementation, accumulation_dtype, dot
from sparsejax.kernels.lines import StoredColumns, stored_columns
from sparsejax.topology.blocks import BlockGrid, BlockIndex, BlockSparse

# Smallest inner width U * bk of one product in the pointer form: narrower ones are dominated by the update of Y_j,
# wider ones multiply more zeros at the end of a column.
_CHUNK_WIDTH = 64
# From this bk on dX is summed token-major, bk numbers at a time: shorter runs of memory cost more than turning it back.
_WIDE_SIDE = 64


def feature_major(activation_TK: jax.Array, side: int) -> jax.Array:
    """``[T, K] -> [K / side, side, T]``."""
    return activation_TK.T.reshape(-1, side, activation_TK.shape[0])


def _gather_slabs(x_f: jax.Array, rows: jax.Array) -> jax.Array:
    """The slabs of some block rows, stacked: ``[R * bk, T]``."""
    return x_f.at[rows].get(mode="clip").reshape(-1, x_f.shape[-1])


def _read_column(activation_TN: jax.Array, column: jax.Array, width: int) -> jax.Array:
    """Block column ``column``, ``[T, width]``."""
    return lax.dynamic_slice_in_dim(activation_TN, column * width, width, axis=1, allow_negative_indices=False)


def _write_column(y_TN: jax.Array, column: jax.Array, y_j: jax.Array) -> jax.Array:
    """A token-major array with one of its block columns set to ``y_j [bn, T]``."""
    # Without the barrier the transpose would be folded into the product before it, which then runs at half the speed.
    y_j = lax.optimization_barrier(y_j).T
    start = column * y_j.shape[1]
    return lax.dynamic_update_slice_in_dim(y_TN, y_j, start, axis=1, allow_negative_indices=False)


def token_major(activation_f: jax.Array) -> jax.Array:
    """``[K / side, side, T] -> [T, K]``, the inverse of ``feature_major``.

    A loop, because a plain transpose would become part of every operation that reads the result, each of which would
    then read across the lines of the cache.
    """
    sides, side, tokens = activation_f.shape

    def write(row: jax.Array, activation_TK: jax.Array) -> jax.Array:
        slab = lax.dynamic_index_in_dim(activation_f, row, keepdims=False, allow_negative_indices=False)
        return _write_column(activation_TK, row, slab)

    return lax.fori_loop(0, sides, write, jnp.zeros((tokens, sides * side), activation_f.dtype))


def _stacked(values: jax.Array) -> jax.Array:
    """``[R, bk, bn] -> [R * bk, bn]``."""
    return values.reshape(-1, values.shape[-1])


def _no_gx(x_f: jax.Array) -> jax.Array:
    """A dX of zeros: ``[T, K]`` where block rows are wide, ``[K/bk, bk, T]`` where they are not."""
    sides, side, tokens = x_f.shape
    shape = (tokens, sides * side) if side >= _WIDE_SIDE else x_f.shape
    return jnp.zeros(shape, accumulation_dtype(x_f.dtype))


def _add_column(gx: jax.Array, rows: jax.Array, values: jax.Array, gy_j: jax.Array) -> jax.Array:
    """Add what one column gives to dX: ``dY_j V_r^T`` at block row ``rows[r]``, one block row after another."""
    side, token_major_gx = values.shape[1], gx.ndim == 2
    # Products of all blocks at once, [T, R * bk] or [R * bk, T].
    parts = dot(gy_j, _stacked(values).T) if token_major_gx else dot(_stacked(values), gy_j.T)

    def add(r: jax.Array, gx: jax.Array) -> jax.Array:
        row = lax.dynamic_index_in_dim(rows, r, keepdims=False, allow_negative_indices=False)
        if token_major_gx:
            part = _read_column(gx, row, side) + _read_column(parts, r, side)
            return lax.dynamic_update_slice_in_dim(gx, part, row * side, axis=1, allow_negative_indices=False)
        part = lax.dynamic_slice_in_dim(parts, r * side, side, allow_negative_indices=False)
        part = lax.dynamic_index_in_dim(gx, row, allow_negative_indices=False) + part
        return lax.dynamic_update_index_in_dim(gx, part, row, 0, allow_negative_indices=False)

    return lax.fori_loop(0, rows.shape[0], add, gx)


class _Columns(NamedTuple):
    """Block columns that hold the same static number R of blocks; C of them."""

    col: np.ndarray  # [C] global block column
    slot: np.ndarray  # [C, R] storage slots of the column, all shares of the contraction together


def _static_columns(grid: BlockGrid, capacity: int) -> Iterator[_Columns]:
    """The columns of a balanced weight, grouped by count; columns without blocks are left out."""
    per_share = capacity // grid.shards
    counts = grid.column_counts(per_share)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    share = np.arange(grid.shards)
    for count in sorted({int(c) for c in counts} - {0}):
        local = np.flatnonzero(counts == count)
        # slot[s, j, r]: share s, local column j, block r.
        slot = share[:, None, None] * per_share + starts[local][:, None] + np.arange(count)
        if grid.shard_axis == "rows":
            # Every share holds a piece of the same column: one product contracts over all of them.
            yield _Columns(col=local, slot=slot.transpose(1, 0, 2).reshape(local.size, -1))
        else:
            col = share[:, None] * grid.share_columns + local
            yield _Columns(col=col.reshape(-1), slot=slot.reshape(col.size, count))


def _take(array: jax.Array, slot: np.ndarray) -> jax.Array:
    """``array[slot]``; a plain slice where the slots are consecutive, as they are in a weight of one share."""
    first = int(slot.flat[0])
    if np.array_equal(slot.reshape(-1), np.arange(first, first + slot.size)):
        return array[first : first + slot.size].reshape(*slot.shape, *array.shape[1:])
    return array[slot]


def _balanced_forward(x_f: jax.Array, weight: BlockSparse, index: BlockIndex) -> jax.Array:
    y_TN = jnp.zeros((x_f.shape[-1], weight.grid.shape[1]), accumulation_dtype(x_f.dtype))

    def column(y_TN: jax.Array, block: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        col, rows, values = block
        return _write_column(y_TN, col, dot(_stacked(values).T, _gather_slabs(x_f, rows))), None

    for group in _static_columns(weight.grid, weight.values.shape[0]):
        blocks = (jnp.asarray(group.col), _take(index.rows, group.slot), _take(weight.values, group.slot))
        y_TN, _ = lax.scan(column, y_TN, blocks)
    return y_TN


def _balanced_backward(
    x_f: jax.Array, weight: BlockSparse, index: BlockIndex, gy_TN: jax.Array
) -> tuple[jax.Array, jax.Array]:
    bn = weight.grid.block[1]
    gx = _no_gx(x_f)

    def column(gx: jax.Array, block: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        col, rows, values = block
        gy_j = _read_column(gy_TN, col, bn)
        gvalues_j = dot(_gather_slabs(x_f, rows), gy_j)
        return _add_column(gx, rows, values, gy_j), gvalues_j.reshape(values.shape)

    slots, parts = [], []
    for group in _static_columns(weight.grid, weight.values.shape[0]):
        blocks = (jnp.asarray(group.col), _take(index.rows, group.slot), _take(weight.values, group.slot))
        gx, gvalues = lax.scan(column, gx, blocks)
        slots.append(group.slot.reshape(-1))
        parts.append(gvalues.reshape(-1, *weight.grid.block))
    return gx, _take(jnp.concatenate(parts), np.argsort(np.concatenate(slots)))


class _Chunk(NamedTuple):
    """U consecutive slots, of which those at or past ``stop`` belong to another column."""

    slot: jax.Array  # first slot
    mine: jax.Array  # [U, 1, 1] bool
    rows: jax.Array  # [U]
    values: jax.Array  # [U, bk, bn], 0 where not mine


def _chunk_slots(grid: BlockGrid) -> int:
    return -(-_CHUNK_WIDTH // grid.block[0])


def _read_chunk(weight: BlockSparse, index: BlockIndex, slot: jax.Array, stop: jax.Array) -> _Chunk:
    slots = slot + jnp.arange(_chunk_slots(weight.grid), dtype=jnp.int32)
    mine = (slots < stop)[:, None, None]
    values = jnp.where(mine, weight.values.at[slots].get(mode="clip"), 0)
    return _Chunk(slot, mine, index.rows.at[slots].get(mode="clip"), values)


def _pointer_forward(x_f: jax.Array, weight: BlockSparse, index: BlockIndex) -> jax.Array:
    grid, slots = weight.grid, _chunk_slots(weight.grid)
    y_TN = jnp.zeros((x_f.shape[-1], grid.shape[1]), accumulation_dtype(x_f.dtype))
    # Shares of rows each hold a piece of the same column: it is visited once a share, and summed.
    revisited = grid.shard_axis == "rows" and grid.shards > 1

    def column(y_TN: jax.Array, place: StoredColumns) -> tuple[jax.Array, None]:
        def add_chunk(i: jax.Array, y_j: jax.Array) -> jax.Array:
            chunk = _read_chunk(weight, index, place.start + i * slots, place.stop)
            return y_j + dot(_stacked(chunk.values).T, _gather_slabs(x_f, chunk.rows))

        chunks = lax.div(place.stop - place.start + (slots - 1), jnp.int32(slots))
        y_j = jnp.zeros((grid.block[1], y_TN.shape[0]), y_TN.dtype)
        if revisited:
            y_j = _read_column(y_TN, place.column, grid.block[1]).T
        return _write_column(y_TN, place.column, lax.fori_loop(0, chunks, add_chunk, y_j)), None

    return lax.scan(column, y_TN, stored_columns(index, grid))[0]


def _pointer_backward(
    x_f: jax.Array, weight: BlockSparse, index: BlockIndex, gy_TN: jax.Array
) -> tuple[jax.Array, jax.Array]:
    n, wide, slots = weight.values.shape[0], accumulation_dtype(x_f.dtype), _chunk_slots(weight.grid)
    # The last chunk of a column may reach past it. What it writes there is 0, and ranges are visited in storage
    # order, so the column that owns those slots overwrites it; slots - 1 spare ones absorb the end.
    carry = (_no_gx(x_f), jnp.zeros((n + slots - 1, *weight.grid.block), wide))

    def column(carry: tuple[jax.Array, jax.Array], place: StoredColumns) -> tuple[tuple[jax.Array, jax.Array], None]:
        gy_j = _read_column(gy_TN, place.column, weight.grid.block[1])

        def add_chunk(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            gx, gvalues = carry
            chunk = _read_chunk(weight, index, place.start + i * slots, place.stop)
            gchunk = dot(_gather_slabs(x_f, chunk.rows), gy_j).reshape(chunk.values.shape)
            gvalues = lax.dynamic_update_slice_in_dim(gvalues, jnp.where(chunk.mine, gchunk, 0), chunk.slot, 0)
            return _add_column(gx, chunk.rows, chunk.values, gy_j), gvalues

        chunks = lax.div(place.stop - place.start + (slots - 1), jnp.int32(slots))
        return lax.fori_loop(0, chunks, add_chunk, carry), None

    (gx, gvalues), _ = lax.scan(column, carry, stored_columns(index, weight.grid))
    return gx, gvalues[:n]


def _block_index(weight: BlockSparse) -> BlockIndex:
    if not isinstance(weight.index, BlockIndex):
        raise TypeError(_unsupported(weight.grid, weight.values.dtype))
    return weight.index


def forward(x_TK: jax.Array, weight: BlockSparse) -> jax.Array:
    """``Y = X W``, ``[T, N]``, column by column."""
    form = _balanced_forward if weight.grid.balance == "column" else _pointer_forward
    return form(feature_major(x_TK, weight.grid.block[0]), weight, _block_index(weight))


def backward(x_TK: jax.Array, weight: BlockSparse, gy_TN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both gradients in one loop over the columns, from the same gathered slabs."""
    form = _balanced_backward if weight.grid.balance == "column" else _pointer_backward
    gx, gvalues = form(feature_major(x_TK, weight.grid.block[0]), weight, _block_index(weight), gy_TN)
    return gx if gx.ndim == 2 else token_major(gx), gvalues


def _unsupported(grid: BlockGrid, dtype: DTypeLike) -> str:
    del dtype
    if grid.unstructured:
        return "a loop over single elements is never faster than a dense product; use transient"
    return ""


XLA = Implementation(forward, backward, _unsupported)
