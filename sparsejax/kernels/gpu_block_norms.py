"""How much every block of ``G = X^T gY`` weighs, on Hopper, without G: what growth by gradient needs.

    score[r, c] = sum |G| over block (r, c), active or not

The kernel of gV over all places, whose sums stay in registers until all tokens are in them; of a block only the sums
of its rows' absolute values leave the multiprocessor, bk numbers for bk x bn.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu

from sparsejax.kernels.gpu_pairs import PairProducts, pair_products
from sparsejax.kernels.gpu_tiles import ValueTiles
from sparsejax.kernels.gpu_warpgroups import Ref, store
from sparsejax.kernels.lines import Lines
from sparsejax.topology.blocks import BlockGrid


def block_norms(
    x_TK: jax.Array, gy_TN: jax.Array, grid: BlockGrid, tiles: ValueTiles, *, along_rows: bool
) -> jax.Array:
    """``sum |x^T gy|`` of every block.

    Args:
      x_TK: ``[T, K]`` bfloat16 or float16, T a multiple of 8.
      gy_TN: ``[T, N]`` of x's dtype.
      grid: the weight's grid; shares and balance do not matter.
      tiles: with one split, because absolute values of parts do not add up to those of the sum.
      along_rows: pair the blocks of a row.

    Returns:
      ``[K / bk, N / bn]`` float32.
    """
    output = jax.ShapeDtypeStruct((grid.cells, grid.block[0]), jnp.float32)
    scratch = plgpu.SMEM((tiles.warpgroups, grid.block[0]), jnp.float32)
    products = PairProducts("block_norms", grid.block, tiles, along_rows, output, scratch, _store_rows)
    rows = pair_products(x_TK, gy_TN, _all_places(grid, along_rows=along_rows), products)
    return jnp.sum(rows, axis=1).reshape(grid.rows, grid.columns)


def _all_places(grid: BlockGrid, *, along_rows: bool) -> Lines:
    """Every place of the grid; the slot of a place is its number, row by row."""
    lines, places = (grid.rows, grid.columns) if along_rows else (grid.columns, grid.rows)
    start = jnp.arange(lines, dtype=jnp.int32) * places
    line, place = (x.reshape(-1) for x in jnp.indices((lines, places), dtype=jnp.int32))
    slot = line * places + place if along_rows else place * lines + line
    return Lines(start, start + places, slot, place)


def _store_rows(sums: jax.Array, split: jax.Array, slot: jax.Array, scratch: Ref, rows: Ref) -> None:
    del split
    store(scratch, jnp.sum(jnp.abs(sums), axis=1), rows.at[slot])
