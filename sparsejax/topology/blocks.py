"""One sparse weight, stored as its active blocks (docs/ARCHITECTURE.md, section Storage).

Axes: K input width, N output width, bk x bn the block, n slots (a static capacity), S shares,
c = n / S slots a share. A weight ``W [K, N]`` is ``values [n, bk, bn]`` and integer coordinates.
Inside a share every block has a *position* ``column * share_rows + row`` (local coordinates), so
ascending positions are the storage order (share, column, row). A slot without a block is *free*: its
position is ``cells_per_share``, its column ``N / bn``, its value 0, and it sits last in its share.

Every function here takes one weight; layers of one kind are stacked and handled by ``jax.vmap``.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.config import ConfigError

Balance = Literal["none", "column"]
ShardAxis = Literal["rows", "columns"]


@dataclasses.dataclass(frozen=True)
class BlockGrid:
    """The static half of a sparse weight: everything about it that never changes while it trains.

    Attributes:
      shape: ``(K, N)``, in and out width of the weight.
      block: ``(bk, bn)``, both dividing the shape.
      shards: number of equal shares S the weight is cut into.
      shard_axis: the axis tensor parallelism cuts: ``"columns"`` (q, k, v, gate, up) or ``"rows"`` (o, down).
      balance: ``"column"`` keeps the block count of every (share, column) fixed, see ``column_counts``.
    """

    shape: tuple[int, int]
    block: tuple[int, int]
    shards: int = 1
    shard_axis: ShardAxis = "columns"
    balance: Balance = "none"

    def __post_init__(self) -> None:
        for name, pair in (("shape", self.shape), ("block", self.block)):
            if not isinstance(pair, tuple) or len(pair) != 2 or not all(map(_is_positive, pair)):
                raise ValueError(f"{name}={pair!r}: must be two whole numbers of at least 1")
        if not _is_positive(self.shards):
            raise ValueError(f"shards={self.shards!r}: must be a whole number of at least 1")
        for field, value, legal in (
            ("shard_axis", self.shard_axis, get_args(ShardAxis)),
            ("balance", self.balance, get_args(Balance)),
        ):
            if value not in legal:
                raise ValueError(f"{field}={value!r}: not one of {', '.join(legal)}")
        for axis, (width, side) in enumerate(zip(self.shape, self.block, strict=True)):
            if width % side:
                raise ValueError(f"block={self.block}: {side} does not divide axis {axis} of shape {self.shape}")
        cut = self.rows if self.shard_axis == "rows" else self.columns
        if cut % self.shards:
            raise ValueError(f"shards={self.shards}: does not divide the {cut} block {self.shard_axis}")
        if self.shape[0] * self.shape[1] >= 2**31:
            raise ConfigError(
                f"shape={self.shape}: more than 2**31 elements, too many for int32 indices; lower model.hidden, "
                "model.mlp or model.heads"
            )

    @property
    def rows(self) -> int:
        """Block rows ``K / bk``."""
        return self.shape[0] // self.block[0]

    @property
    def columns(self) -> int:
        """Block columns ``N / bn``."""
        return self.shape[1] // self.block[1]

    @property
    def cells(self) -> int:
        """Number of places a block can have."""
        return self.rows * self.columns

    @property
    def share_rows(self) -> int:
        """Block rows of one share."""
        return self.rows // self.shards if self.shard_axis == "rows" else self.rows

    @property
    def share_columns(self) -> int:
        """Block columns of one share."""
        return self.columns // self.shards if self.shard_axis == "columns" else self.columns

    @property
    def cells_per_share(self) -> int:
        """Number of places a block can have in one share."""
        return self.cells // self.shards

    @property
    def unstructured(self) -> bool:
        """True for block (1, 1), which is stored with one flat index an element."""
        return self.block == (1, 1)

    def column_counts(self, count: int) -> np.ndarray:
        """Blocks in each column of a share under ``balance="column"``, ``[share_columns]`` int.

        ``count`` blocks a share are spread so that counts differ by at most one; the first columns hold
        the larger count. The split is arithmetic, so kernels know every column's slots before compiling.
        """
        low, extra = divmod(count, self.share_columns)
        return np.array([low + (j < extra) for j in range(self.share_columns)], dtype=np.int64)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BlockIndex:
    """Coordinates of the active blocks of one weight; all int32, derived once when the topology changes.

    Attributes:
      rows, cols: ``[n]`` global block coordinates in storage order; a free slot has ``row 0, col N / bn``.
      column_pointers: ``[S, share_columns + 1]``; slots of local column j of share s are ``p[s, j]:p[s, j + 1]``,
        counted from the start of the share. They stop before the free slots.
      row_pointers: ``[S, share_rows + 1]``, the same for rows, into ``row_order``.
      row_order: ``[S, c]``; slots of the share sorted by (row, column), free slots last. Reading ``values``
        through it visits the weight row by row without a transposed copy.
    """

    rows: jax.Array
    cols: jax.Array
    column_pointers: jax.Array
    row_pointers: jax.Array
    row_order: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FlatIndex:
    """Coordinates of an unstructured weight: ``flat [n]`` int32 = ``row * N + column``; free slots hold ``K * N``."""

    flat: jax.Array


Index = BlockIndex | FlatIndex


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BlockSparse:
    """One sparse weight: ``values [n, bk, bn]`` (the only trainable leaf), its index, its static grid."""

    values: jax.Array
    index: Index
    grid: BlockGrid = dataclasses.field(metadata={"static": True})

    @property
    def rows(self) -> jax.Array:
        """Global block row of every slot, ``[n]`` int32 (0 for a free slot)."""
        return coordinates(self.index, self.grid)[0]

    @property
    def cols(self) -> jax.Array:
        """Global block column of every slot, ``[n]`` int32 (``N / bn`` for a free slot)."""
        return coordinates(self.index, self.grid)[1]


def coordinates(index: Index, grid: BlockGrid) -> tuple[jax.Array, jax.Array]:
    """Global block ``(rows, cols)`` of every slot, each ``[n]`` int32."""
    if isinstance(index, BlockIndex):
        return index.rows, index.cols
    width = grid.shape[1]
    free = index.flat >= grid.cells
    return jnp.where(free, 0, index.flat // width), jnp.where(free, width, index.flat % width)


def positions_of(index: Index, grid: BlockGrid) -> jax.Array:
    """Share-local positions of the slots, ``[S, c]`` int32, ascending, ``cells_per_share`` where free."""
    rows, cols = coordinates(index, grid)
    local_rows, local_cols = rows % grid.share_rows, cols % grid.share_columns
    position = jnp.where(cols < grid.columns, local_cols * grid.share_rows + local_rows, grid.cells_per_share)
    return position.reshape(grid.shards, -1).astype(jnp.int32)


# Compiled once a grid: called outside a program, one by one, its operations would each be compiled alone.
@functools.partial(jax.jit, static_argnames="grid", inline=True)
def index_from_positions(position_Sc: jax.Array, grid: BlockGrid) -> Index:
    """The index whose slots hold the given positions; the inverse of ``positions_of``.

    Args:
      position_Sc: ``[S, c]`` integers, ascending in every share, free slots (``cells_per_share``) last.
      grid: the weight's grid.
    """
    share = jnp.arange(grid.shards, dtype=jnp.int32)[:, None]
    position_Sc = position_Sc.astype(jnp.int32)
    free = position_Sc >= grid.cells_per_share
    local_col, local_row = position_Sc // grid.share_rows, position_Sc % grid.share_rows
    row = local_row + (share * grid.share_rows if grid.shard_axis == "rows" else 0)
    col = local_col + (share * grid.share_columns if grid.shard_axis == "columns" else 0)
    row = jnp.where(free, 0, row).reshape(-1)
    col = jnp.where(free, grid.columns, col).reshape(-1)
    if grid.unstructured:
        return FlatIndex(flat=jnp.where(free.reshape(-1), grid.cells, row * grid.shape[1] + col))
    by_row = jnp.where(free, grid.cells_per_share, local_row * grid.share_columns + local_col)
    slot = jnp.broadcast_to(jnp.arange(by_row.shape[1], dtype=jnp.int32), by_row.shape)
    # Two keys, because free slots share one (row, column) key: they stay last, in storage order.
    by_row, row_order = jax.lax.sort((by_row, slot), dimension=1, num_keys=2)
    return BlockIndex(
        rows=row,
        cols=col,
        column_pointers=_pointers(position_Sc, grid.share_rows, grid.share_columns),
        row_pointers=_pointers(by_row, grid.share_columns, grid.share_rows),
        row_order=row_order,
    )


def _pointers(key_Sc: jax.Array, per_line: int, lines: int) -> jax.Array:
    """Where each line (column or row) starts among ascending keys, ``[S, lines + 1]`` int32."""
    starts = jnp.arange(lines + 1, dtype=jnp.int32) * per_line
    return jax.vmap(lambda key: jnp.searchsorted(key, starts, side="left"))(key_Sc).astype(jnp.int32)


def abstract_index(grid: BlockGrid, capacity: int) -> Index:
    """Shapes and dtypes of an index with ``capacity`` slots, as ``jax.ShapeDtypeStruct`` leaves."""
    slots = jax.ShapeDtypeStruct((grid.shards, capacity // grid.shards), jnp.int32)
    return jax.eval_shape(lambda p: index_from_positions(p, grid), slots)


def active_mask(index: Index, grid: BlockGrid) -> jax.Array:
    """``[n]`` bool, False for free slots."""
    if isinstance(index, FlatIndex):
        return index.flat < grid.cells
    return index.cols < grid.columns


def to_dense(weight: BlockSparse) -> jax.Array:
    """The dense matrix ``[K, N]`` the weight stands for: zero outside its active blocks."""
    grid, values = weight.grid, weight.values
    if isinstance(weight.index, FlatIndex):
        flat = jnp.zeros((grid.cells,), values.dtype)
        return flat.at[weight.index.flat].set(values.reshape(-1), mode="drop").reshape(grid.shape)
    cells = jnp.zeros((grid.rows, grid.columns, *grid.block), values.dtype)
    cells = cells.at[weight.index.rows, weight.index.cols].set(values, mode="drop")
    return cells.transpose(0, 2, 1, 3).reshape(grid.shape)


def gather_blocks(dense_KN: jax.Array, index: Index, grid: BlockGrid) -> jax.Array:
    """The blocks of a dense matrix at the active places, ``[n, bk, bn]``; exactly 0 in free slots.

    An out-of-range gather clamps by default and would read a real block for a free slot; ``mode="fill"`` does not.

    Raises:
      ValueError: the matrix does not have the grid's shape.
    """
    if dense_KN.shape != grid.shape:
        raise ValueError(f"a dense matrix of shape {dense_KN.shape}: the grid has {grid.shape}")
    if isinstance(index, FlatIndex):
        picked = dense_KN.reshape(-1).at[index.flat].get(mode="fill", fill_value=0)
        return picked.reshape(-1, 1, 1)
    (bk, bn) = grid.block
    cells = dense_KN.reshape(grid.rows, bk, grid.columns, bn).transpose(0, 2, 1, 3)
    return cells.at[index.rows, index.cols].get(mode="fill", fill_value=0)


def from_dense(dense_KN: jax.Array, index: Index, grid: BlockGrid) -> BlockSparse:
    """The sparse weight that holds ``dense_KN`` at the places of ``index`` and zero elsewhere."""
    return BlockSparse(values=gather_blocks(dense_KN, index, grid), index=index, grid=grid)


def index_from_mask(mask: np.ndarray, grid: BlockGrid, capacity: int) -> Index:
    """The index of the blocks where ``mask [K / bk, N / bn]`` is true (on the host), padded to ``capacity`` slots.

    Raises:
      ValueError: the mask has the wrong shape, or one share holds more blocks than ``capacity / S``.
    """
    if mask.shape != (grid.rows, grid.columns):
        raise ValueError(f"mask of shape {mask.shape}: the grid has {(grid.rows, grid.columns)} blocks")
    if capacity % grid.shards:
        raise ValueError(f"capacity={capacity}: must be a multiple of shards={grid.shards}")
    axis = 0 if grid.shard_axis == "rows" else 1
    position = np.full((grid.shards, capacity // grid.shards), grid.cells_per_share, np.int32)
    for share, part in enumerate(np.split(mask, grid.shards, axis=axis)):
        active = np.flatnonzero(part.T.reshape(-1))
        if active.size > position.shape[1]:
            raise ValueError(f"share {share} holds {active.size} blocks, its capacity is {position.shape[1]}")
        position[share, : active.size] = active
    return index_from_positions(jnp.asarray(position), grid)


def validate(weight: BlockSparse) -> None:
    """Check every promise of the storage on the host; raises ``ValueError`` naming the broken one."""
    grid, values = weight.grid, np.asarray(weight.values)
    if values.ndim != 3 or values.shape[1:] != grid.block:
        raise ValueError(f"values of shape {values.shape}: must be [n, {grid.block[0]}, {grid.block[1]}]")
    if values.shape[0] % grid.shards:
        raise ValueError(f"{values.shape[0]} slots do not divide into {grid.shards} shares")
    position = np.asarray(positions_of(weight.index, grid)).astype(np.int64)
    free = position >= grid.cells_per_share
    step = np.diff(position, axis=1)
    if ((step <= 0) & ~free[:, 1:]).any() or (step < 0).any():
        raise ValueError("blocks must be unique and sorted by (share, column, row), free slots last")
    if np.any(values.reshape(position.shape + grid.block)[free] != 0):
        raise ValueError("a free slot holds a value other than 0")
    rebuilt = index_from_positions(jnp.asarray(position), grid)
    for field in dataclasses.fields(rebuilt):
        if not np.array_equal(getattr(rebuilt, field.name), getattr(weight.index, field.name)):
            raise ValueError(f"{field.name} does not belong to the coordinates")
    if grid.balance == "column":
        if free.any():
            raise ValueError("balance='column' has no free slots: its column counts are static")
        counts = np.stack([np.bincount(p // grid.share_rows, minlength=grid.share_columns) for p in position])
        if np.any(counts != grid.column_counts(position.shape[1])):
            raise ValueError("a block column does not hold its static count")
