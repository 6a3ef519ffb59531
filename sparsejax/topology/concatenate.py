"""Several sparse weights of one input, side by side as one: ``[W_1 | W_2 | ..]``.

Weights with the same input width and blocks have their products in common: ``X [W_1 | W_2]`` reads X once. Where
the weights are cut by columns into S shares, every share is put together alone, ``[W_1 share s | W_2 share s | ..]``,
so that a share of the result is still on one device. Nothing is sorted: blocks stay in the order they have, and
the pointers of rows are merged by arithmetic.

Axes: S shares, c slots a share, R lines (block rows of a share, and one more for the free slots), T tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sparsejax.topology.blocks import BlockGrid, BlockIndex, BlockSparse, active_mask


def check_alike(grids: Sequence[BlockGrid]) -> None:
    """Raise ``ValueError`` unless weights on these grids have the same input width, block and shares."""
    for name in ("block", "shards", "shard_axis"):
        found = [getattr(grid, name) for grid in grids]
        if len(set(found)) > 1:
            raise ValueError(f"{name} of {', '.join(map(str, found))}: weights side by side must have the same")
    inputs = [grid.shape[0] for grid in grids]
    if len(set(inputs)) > 1:
        raise ValueError(f"input widths of {', '.join(map(str, inputs))}: weights side by side must have the same")


def concatenated_grid(grids: Sequence[BlockGrid]) -> BlockGrid:
    """The grid of the weights side by side. Column counts are no longer static, so nothing is balanced.

    Raises:
      ValueError: the weights are not alike, or are stored element by element.
    """
    check_alike(grids)
    if grids[0].unstructured:
        raise ValueError("blocks of one element: weights side by side must be stored in larger blocks")
    shape = (grids[0].shape[0], sum(grid.shape[1] for grid in grids))
    return dataclasses.replace(grids[0], shape=shape, balance="none")


def concatenate(weights: Sequence[BlockSparse]) -> BlockSparse:
    """The weights side by side, values in their common dtype.

    The result keeps every promise of the storage where the weights have no free slots. Free slots cannot be last in
    their share without moving values, so each becomes a block of value 0 in the last column of its weight, which no
    row lists: ``X W`` is right, so is ``gY W^T``, and ``split_slots`` drops the gradient that they get.

    Raises:
      ValueError: see ``concatenated_grid``.
    """
    grid = concatenated_grid([weight.grid for weight in weights])
    indices = [weight.index for weight in weights if isinstance(weight.index, BlockIndex)]
    first_slot = _offsets([index.row_order.shape[1] for index in indices])
    first_column = _offsets([weight.grid.share_columns for weight in weights])
    starts = [index.column_pointers[:, :-1] + slot for index, slot in zip(indices, first_slot, strict=False)]
    end = jnp.full((grid.shards, 1), first_slot[-1], jnp.int32)
    cols = [_moved_columns(weight, grid, column) for weight, column in zip(weights, first_column, strict=False)]
    row_pointers, row_order = _merged_rows(indices, first_slot)
    index = BlockIndex(
        rows=_beside([index.rows for index in indices], grid.shards).reshape(-1),
        cols=_beside(cols, grid.shards).reshape(-1),
        column_pointers=jnp.concatenate([*starts, end], axis=1),
        row_pointers=row_pointers,
        row_order=row_order,
    )
    values = _beside([weight.values for weight in weights], grid.shards)
    return BlockSparse(values.reshape(-1, *grid.block), index, grid)


def split_slots(slots: jax.Array, weights: Sequence[BlockSparse]) -> tuple[jax.Array, ...]:
    """What belongs to the slots of each weight, ``[n, bk, bn]``, out of ``concatenate``'s order; 0 in free slots."""
    shards = weights[0].grid.shards
    by_share = slots.reshape(shards, -1, *slots.shape[1:])
    first = _offsets([weight.values.shape[0] // shards for weight in weights])
    parts = []
    for weight, (begin, end) in zip(weights, itertools.pairwise(first), strict=True):
        part = by_share[:, begin:end].reshape(-1, *slots.shape[1:])
        parts.append(jnp.where(active_mask(weight.index, weight.grid)[:, None, None], part, 0))
    return tuple(parts)


def join_columns(outputs: Sequence[jax.Array], grid: BlockGrid) -> jax.Array:
    """Outputs ``[T, N_w]`` of the weights as the output ``[T, N]`` of the one they make together on ``grid``."""
    tokens, shares = outputs[0].shape[0], _column_shares(grid)
    # An axis of one share would be a layout of its own to XLA, and cost a copy of every output.
    if shares == 1:
        return jnp.concatenate(outputs, axis=1)
    return jnp.concatenate([y.reshape(tokens, shares, -1) for y in outputs], axis=2).reshape(tokens, -1)


def split_columns(y_TN: jax.Array, grids: Sequence[BlockGrid]) -> tuple[jax.Array, ...]:
    """The inverse of ``join_columns``."""
    tokens, shares = y_TN.shape[0], _column_shares(grids[0])
    first = _offsets([grid.shape[1] // shares for grid in grids])
    if shares == 1:
        return tuple(y_TN[:, a:b] for a, b in itertools.pairwise(first))
    y_TSN = y_TN.reshape(tokens, shares, -1)
    return tuple(y_TSN[:, :, a:b].reshape(tokens, -1) for a, b in itertools.pairwise(first))


def _column_shares(grid: BlockGrid) -> int:
    return grid.shards if grid.shard_axis == "columns" else 1


def _offsets(sizes: Sequence[int]) -> list[int]:
    """Where each part begins, and where the last one ends."""
    return [sum(sizes[:i]) for i in range(len(sizes) + 1)]


def _beside(arrays: Sequence[jax.Array], shards: int) -> jax.Array:
    """``[n, ..]`` of every weight as ``[S, sum of c, ..]``."""
    return jnp.concatenate([array.reshape(shards, -1, *array.shape[1:]) for array in arrays], axis=1)


def _moved_columns(weight: BlockSparse, grid: BlockGrid, first: int) -> jax.Array:
    """The columns of a weight's slots on the common grid, where its share begins at local column ``first``."""
    own, last = weight.grid, weight.grid.share_columns - 1
    if own.shard_axis == "rows":
        return first + jnp.minimum(weight.cols, last)
    share = jnp.repeat(jnp.arange(own.shards, dtype=jnp.int32), weight.cols.shape[0] // own.shards)
    local = jnp.minimum(weight.cols - share * own.share_columns, last)
    return share * grid.share_columns + first + local


def _merged_rows(indices: Sequence[BlockIndex], first_slot: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Row pointers and row order of all weights together: a row of the first weight, the same of the second, ..

    Entry e of the result is in the line that begins last at or before e; which weight it belongs to follows from
    counting that line's entries weight by weight.
    """
    # Free slots stand behind the last row of each weight, as one more line.
    lines = [
        jnp.concatenate([index.row_pointers, jnp.full_like(index.row_pointers[:, :1], index.row_order.shape[1])], 1)
        for index in indices
    ]
    pointers = sum(lines[1:], lines[0])
    entry = jnp.arange(first_slot[-1], dtype=jnp.int32)
    find = jax.vmap(lambda stops: jnp.searchsorted(stops, entry, side="right", method="compare_all"))
    line = find(pointers[:, 1:]).astype(jnp.int32)
    within = entry - jnp.take_along_axis(pointers, line, axis=1)
    order = jnp.zeros_like(within)
    for index, own, slot in zip(indices, lines, first_slot, strict=False):
        start = jnp.take_along_axis(own, line, axis=1)
        count = jnp.take_along_axis(own, line + 1, axis=1) - start
        mine = (within >= 0) & (within < count)
        place = jnp.clip(start + within, 0, index.row_order.shape[1] - 1)
        order = jnp.where(mine, slot + jnp.take_along_axis(index.row_order, place, axis=1), order)
        within = within - count
    return pointers[:, :-1], order
