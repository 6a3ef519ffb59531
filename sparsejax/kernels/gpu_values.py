"""``gV`` on Hopper: the blocks of ``X^T gY`` at the active places.

Axes: T tokens, K input width, N output width, n slots of bk x bn values.

    partial[s, slot] = x[part s of the tokens, row]^T gy[part s of the tokens, column]        gV = sum over s

Parts of the tokens are what fills the multiprocessors where blocks are few. They are added by a second pass in a
fixed order, in float32: the result does not depend on timing.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from sparsejax.kernels.gpu_pairs import PairProducts, pair_products
from sparsejax.kernels.gpu_tiles import STORED, ValueTiles
from sparsejax.kernels.gpu_warpgroups import Ref, stage, store
from sparsejax.kernels.lines import Lines


def value_gradient(
    x_TK: jax.Array, gy_TN: jax.Array, lines: Lines, block: tuple[int, int], tiles: ValueTiles, *, along_rows: bool
) -> jax.Array:
    """The gradient of the values.

    Args:
      x_TK: ``[T, K]`` bfloat16 or float16, T a multiple of 8.
      gy_TN: ``[T, N]`` of x's dtype.
      lines: block rows if ``along_rows``, else block columns.
      block: ``(bk, bn)``.
      tiles: see ``ValueTiles``.
      along_rows: pair the blocks of a row.

    Returns:
      ``[n, bk, bn]`` float32. Free slots hold anything: nothing was written there.
    """
    output = jax.ShapeDtypeStruct((tiles.splits, lines.slot.size, *block), jnp.float32)
    scratch = stage((tiles.warpgroups, STORED, STORED), jnp.float32)
    products = PairProducts("block_values", block, tiles, along_rows, output, scratch, _store_block)
    partial = pair_products(x_TK, gy_TN, lines, products)
    # Written out, because the order of a reduction is the compiler's choice.
    return functools.reduce(jnp.add, [partial[split] for split in range(tiles.splits)])


def _store_block(sums: jax.Array, split: jax.Array, slot: jax.Array, scratch: Ref, partial: Ref) -> None:
    for r in range(0, sums.shape[0], STORED):
        for c in range(0, sums.shape[1], STORED):
            target = partial.at[split, slot, pl.ds(r, STORED), pl.ds(c, STORED)]
            store(scratch, sums[r : r + STORED, c : c + STORED], target)
