"""Block sums of ``|X^T gY|`` on TPU: a dense product whose result leaves the chip as one number a block.

Axes: T tokens, t tokens of a step, K and N the widths, R x C block rows and columns of bk x bn, r x c blocks of a tile.

The grid is (row tiles, column tiles, token steps). The sums of one tile ``[r bk, c bn]`` of the gradient stay in VMEM
while all tokens pass by; after the last ones each of its r c blocks is reduced to a number in SMEM, and the tile is
overwritten by the next. Every block has to be looked at, so time is that of the dense product, whatever the density.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike

from sparsejax.hardware.chips import Chip
from sparsejax.kernels.tpu_tiles import usable_vmem
from sparsejax.topology.blocks import BlockGrid

# Longest sides of a tile to try, and the longest step: past these the product no longer waits for its operands.
_SIDES = (1024, 512, 256, 128)
_TOKENS = 512


@dataclasses.dataclass(frozen=True)
class NormTiles:
    """Tiles of the product.

    Attributes:
      tokens: tokens of a step.
      rows: block rows of a tile.
      columns: block columns of a tile.
      vmem_bytes: what the kernel holds, the limit it is compiled under.
    """

    tokens: int
    rows: int
    columns: int
    vmem_bytes: int


def norm_tiles(chip: Chip, grid: BlockGrid, tokens: int, dtype: DTypeLike) -> NormTiles:
    """The largest tile that fits, of one block at least; steps are equal parts of the tokens, as far as they divide."""
    size, (bk, bn) = jnp.dtype(dtype).itemsize, grid.block
    step = -(-tokens // -(-tokens // _TOKENS))
    sublanes = 32 // size
    step = -(-step // sublanes) * sublanes
    for side in _SIDES:
        rows, columns = _equal_parts(grid.rows, side // bk), _equal_parts(grid.columns, side // bn)
        height, width = rows * bk, columns * bn
        # Both operands twice (one in use, one on its way), X turned, the sums, one product.
        held = step * (2 * (height + width) + height) * size + 2 * height * width * 4
        if held <= usable_vmem(chip):
            break
    return NormTiles(step, rows, columns, held)


def _equal_parts(lines: int, most: int) -> int:
    return -(-lines // -(-lines // max(1, most)))


def block_norms(chip: Chip, x_TK: jax.Array, gy_TN: jax.Array, grid: BlockGrid) -> jax.Array:
    """``sum |X^T gY|`` of every block, ``[R, C]`` float32; see ``Implementation.block_norms``."""
    T, (K, N), (bk, bn) = x_TK.shape[0], grid.shape, grid.block
    tiles = norm_tiles(chip, grid, T, x_TK.dtype)
    row_tiles, column_tiles = pl.cdiv(grid.rows, tiles.rows), pl.cdiv(grid.columns, tiles.columns)
    height, width = tiles.rows * bk, tiles.columns * bn
    norms = pl.pallas_call(
        functools.partial(_kernel, tiles=tiles, block=grid.block, tail=T % tiles.tokens),
        grid=(row_tiles, column_tiles, pl.cdiv(T, tiles.tokens)),
        in_specs=[
            pl.BlockSpec((tiles.tokens, height), lambda i, _j, k: (k, i)),
            pl.BlockSpec((tiles.tokens, width), lambda _i, j, k: (k, j)),
        ],
        # Tiles at the edge have blocks past the last one: they are written too, and cut off below.
        out_specs=pl.BlockSpec(
            (1, tiles.rows, column_tiles * tiles.columns), lambda i, _j, _k: (i, 0, 0), memory_space=pltpu.SMEM
        ),
        out_shape=jax.ShapeDtypeStruct((row_tiles, tiles.rows, column_tiles * tiles.columns), jnp.float32),
        scratch_shapes=[pltpu.VMEM((height, width), jnp.float32)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=tiles.vmem_bytes
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * T * K * N,
            bytes_accessed=(column_tiles * x_TK.size + row_tiles * gy_TN.size) * x_TK.dtype.itemsize + 4 * grid.cells,
            transcendentals=0,
        ),
        name="block_norms",
    )(x_TK, gy_TN)
    return norms.reshape(row_tiles * tiles.rows, -1)[: grid.rows, : grid.columns]


def _kernel(
    x_ref: jax.Ref,
    gy_ref: jax.Ref,
    norms_ref: jax.Ref,
    sums_ref: jax.Ref,
    *,
    tiles: NormTiles,
    block: tuple[int, int],
    tail: int,
) -> None:
    (bk, bn), column_tile, step = block, pl.program_id(1), pl.program_id(2)
    last = step == pl.num_programs(2) - 1

    @pl.when(step == 0)
    def _start_from_zero() -> None:
        sums_ref[...] = jnp.zeros_like(sums_ref)

    def counted(activation: jax.Array) -> jax.Array:
        """Zero past the last token: what lies there is not data, and a contraction would take it in."""
        if not tail:
            return activation
        tokens = jnp.where(last, tail, tiles.tokens)
        return jnp.where(lax.broadcasted_iota(jnp.int32, activation.shape, 0) < tokens, activation, 0)

    sums_ref[...] += jnp.dot(counted(x_ref[...]).T, counted(gy_ref[...]), preferred_element_type=jnp.float32)

    @pl.when(last)
    def _reduce_every_block() -> None:
        for row in range(tiles.rows):
            for column in range(tiles.columns):
                values = sums_ref[row * bk : (row + 1) * bk, column * bn : (column + 1) * bn]
                norms_ref[0, row, column_tile * tiles.columns + column] = jnp.sum(jnp.abs(values))
