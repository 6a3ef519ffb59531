"""Block-sparse products in plain XLA: a loop over block columns that visits active blocks only.

Activations are turned feature-major once, ``x_f [K/bk, bk, T]``: the slab of a block row is then contiguous, a
gather of slabs is a plain copy, and every product is a matrix product of that slab with a block, the layout CPU
matrix libraries run fastest. With column j holding the blocks (row_1, V_1) .. (row_R, V_R):

    forward    Y_j        = [V_1; ..; V_R]^T  [x_f[row_1]; ..; x_f[row_R]]        [bn, T]
    backward   dV_r       = x_f[row_r] dY_j^T                                     [bk, bn]
               dX[row_r] += V_r dY_j                                              [bk, T]

There is no padding to a maximum count, no copy of the weight in row order, no dense weight or gradient; loop
carries are updated in place. Two forms differ in where a column's blocks come from:

* ``balance="column"``: counts are static, so a column's R blocks are one gather and one product. Counts differ by
  at most one, hence at most two scans.
* any topology: counts are data. An inner loop runs from ``column_pointers[j]`` to ``column_pointers[j + 1]`` in
  chunks of U slots, U a constant that makes the product's inner width at least ``_CHUNK_WIDTH``.

Free slots lie outside every pointer range: no forward reads them, their gradient stays the 0 it starts as.
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
from sparsejax.topology.blocks import BlockGrid, BlockIndex, BlockSparse

# Smallest inner width U * bk of one product in the pointer form: narrower ones are dominated by the update of Y_j.
_CHUNK_WIDTH = 128
# Up to this many slabs are added one by one, in place and vectorised; more become one scatter, to bound the program.
_UNROLLED_SLABS = 16


def feature_major(activation_TK: jax.Array, side: int) -> jax.Array:
    """``[T, K] -> [K / side, side, T]``."""
    tokens, width = activation_TK.shape
    return activation_TK.reshape(tokens, width // side, side).transpose(1, 2, 0)


def token_major(activation_f: jax.Array) -> jax.Array:
    """``[K / side, side, T] -> [T, K]``, the inverse of ``feature_major``."""
    return activation_f.reshape(-1, activation_f.shape[-1]).T


def _gather_slabs(x_f: jax.Array, rows: jax.Array) -> jax.Array:
    """The slabs of some block rows, stacked: ``[R * bk, T]``."""
    return x_f.at[rows].get(mode="clip").reshape(-1, x_f.shape[-1])


def _add_slabs(dx_f: jax.Array, rows: jax.Array, slabs: jax.Array) -> jax.Array:
    """``dx_f[rows[r]] += slabs[r]``; ``slabs`` is ``[R * bk, T]``."""
    slabs = slabs.reshape(rows.shape[0], *dx_f.shape[1:])
    if rows.shape[0] > _UNROLLED_SLABS:
        return dx_f.at[rows].add(slabs, mode="clip")
    for r in range(rows.shape[0]):
        slab = lax.dynamic_index_in_dim(dx_f, rows[r], keepdims=False) + slabs[r]
        dx_f = lax.dynamic_update_index_in_dim(dx_f, slab, rows[r], 0)
    return dx_f


def _stacked(values: jax.Array) -> jax.Array:
    """``[R, bk, bn] -> [R * bk, bn]``."""
    return values.reshape(-1, values.shape[-1])


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


def _balanced_forward(x_f: jax.Array, weight: BlockSparse, index: BlockIndex) -> jax.Array:
    (_, bn), grid = weight.grid.block, weight.grid
    y_f = jnp.zeros((grid.columns, bn, x_f.shape[-1]), accumulation_dtype(x_f.dtype))

    def column(y_f: jax.Array, block: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        col, rows, values = block
        y_j = dot(_stacked(values).T, _gather_slabs(x_f, rows))
        return lax.dynamic_update_index_in_dim(y_f, y_j, col, 0), None

    for group in _static_columns(grid, weight.values.shape[0]):
        blocks = (jnp.asarray(group.col), index.rows[group.slot], weight.values[group.slot])
        y_f, _ = lax.scan(column, y_f, blocks)
    return y_f


def _balanced_backward(
    x_f: jax.Array, weight: BlockSparse, index: BlockIndex, gy_f: jax.Array
) -> tuple[jax.Array, jax.Array]:
    wide = accumulation_dtype(x_f.dtype)
    gx_f, gvalues = jnp.zeros(x_f.shape, wide), jnp.zeros(weight.values.shape, wide)

    def column(gx_f: jax.Array, block: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        col, rows, values = block
        gy_j = lax.dynamic_index_in_dim(gy_f, col, keepdims=False)
        gvalues_j = dot(_gather_slabs(x_f, rows), gy_j.T)
        return _add_slabs(gx_f, rows, dot(_stacked(values), gy_j)), gvalues_j.reshape(values.shape)

    for group in _static_columns(weight.grid, weight.values.shape[0]):
        blocks = (jnp.asarray(group.col), index.rows[group.slot], weight.values[group.slot])
        gx_f, gvalues_g = lax.scan(column, gx_f, blocks)
        gvalues = gvalues.at[group.slot].set(gvalues_g, unique_indices=True)
    return gx_f, gvalues


class _Ranges(NamedTuple):
    """Where the blocks of every (share, column) are, in storage order; ``[S * share_columns]`` each."""

    start: jax.Array
    stop: jax.Array
    col: jax.Array


def _pointer_ranges(index: BlockIndex, grid: BlockGrid) -> _Ranges:
    shares = jnp.arange(grid.shards, dtype=jnp.int32)[:, None]
    pointers = index.column_pointers + shares * (index.rows.shape[0] // grid.shards)
    first_column = shares * (grid.share_columns if grid.shard_axis == "columns" else 0)
    col = first_column + jnp.arange(grid.share_columns, dtype=jnp.int32)
    return _Ranges(pointers[:, :-1].reshape(-1), pointers[:, 1:].reshape(-1), col.reshape(-1))


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
    y_f = jnp.zeros((grid.columns, grid.block[1], x_f.shape[-1]), accumulation_dtype(x_f.dtype))

    def column(y_f: jax.Array, place: _Ranges) -> tuple[jax.Array, None]:
        def add_chunk(i: jax.Array, y_j: jax.Array) -> jax.Array:
            chunk = _read_chunk(weight, index, place.start + i * slots, place.stop)
            return y_j + dot(_stacked(chunk.values).T, _gather_slabs(x_f, chunk.rows))

        y_j = lax.dynamic_index_in_dim(y_f, place.col, keepdims=False)
        chunks = lax.div(place.stop - place.start + (slots - 1), jnp.int32(slots))
        return lax.dynamic_update_index_in_dim(y_f, lax.fori_loop(0, chunks, add_chunk, y_j), place.col, 0), None

    return lax.scan(column, y_f, _pointer_ranges(index, grid))[0]


def _pointer_backward(
    x_f: jax.Array, weight: BlockSparse, index: BlockIndex, gy_f: jax.Array
) -> tuple[jax.Array, jax.Array]:
    n, wide, slots = weight.values.shape[0], accumulation_dtype(x_f.dtype), _chunk_slots(weight.grid)
    # The last chunk of a column may reach past it. What it writes there is 0, and ranges are visited in storage
    # order, so the column that owns those slots overwrites it; slots - 1 spare ones absorb the end.
    carry = (jnp.zeros(x_f.shape, wide), jnp.zeros((n + slots - 1, *weight.grid.block), wide))

    def column(carry: tuple[jax.Array, jax.Array], place: _Ranges) -> tuple[tuple[jax.Array, jax.Array], None]:
        gy_j = lax.dynamic_index_in_dim(gy_f, place.col, keepdims=False)

        def add_chunk(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            gx_f, gvalues = carry
            chunk = _read_chunk(weight, index, place.start + i * slots, place.stop)
            gchunk = dot(_gather_slabs(x_f, chunk.rows), gy_j.T).reshape(chunk.values.shape)
            gvalues = lax.dynamic_update_slice_in_dim(gvalues, jnp.where(chunk.mine, gchunk, 0), chunk.slot, 0)
            return _add_slabs(gx_f, chunk.rows, dot(_stacked(chunk.values), gy_j)), gvalues

        chunks = lax.div(place.stop - place.start + (slots - 1), jnp.int32(slots))
        return lax.fori_loop(0, chunks, add_chunk, carry), None

    (gx_f, gvalues), _ = lax.scan(column, carry, _pointer_ranges(index, weight.grid))
    return gx_f, gvalues[:n]


def _block_index(weight: BlockSparse) -> BlockIndex:
    if not isinstance(weight.index, BlockIndex):
        raise TypeError(_unsupported(weight.grid, weight.values.dtype))
    return weight.index


def forward(x_TK: jax.Array, weight: BlockSparse) -> jax.Array:
    """``Y = X W``, ``[T, N]``, column by column."""
    form = _balanced_forward if weight.grid.balance == "column" else _pointer_forward
    return token_major(form(feature_major(x_TK, weight.grid.block[0]), weight, _block_index(weight)))


def backward(x_TK: jax.Array, weight: BlockSparse, gy_TN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both gradients in one loop over the columns, from the same gathered slabs."""
    (bk, bn) = weight.grid.block
    form = _balanced_backward if weight.grid.balance == "column" else _pointer_backward
    gx_f, gvalues = form(feature_major(x_TK, bk), weight, _block_index(weight), feature_major(gy_TN, bn))
    return token_major(gx_f), gvalues


def _unsupported(grid: BlockGrid, dtype: DTypeLike) -> str:
    del dtype
    if grid.unstructured:
        return "a loop over single elements is never faster than a dense product; use transient"
    return ""


XLA = Implementation(forward, backward, _unsupported)
