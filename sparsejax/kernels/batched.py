"""One batched product over the slots: for few tokens, where a product is the reading of its weight.

Every slot multiplies its slab of the input, and what the slots of a block column give is summed:

    y_s = x[row_s] V_s        [n, T, bn]          Y[col] = sum of y_s over the slots of a column

The values are read once, in storage order, and nothing as large as a dense weight exists, so with few tokens time
follows density. Slabs and partial outputs are ``n T (bk + bn)`` numbers: with many tokens they outgrow the weight, and
a loop over block columns (``xla``) is the better choice.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax.kernels.implementation import Implementation, accumulation_dtype, supports_everything
from sparsejax.topology.blocks import BlockSparse, active_mask

# So many tokens and fewer are multiplied pairwise: with one it takes about 0.9 of the time of the batched product on
# two cores, with four and eight no two runs agreed which is faster (docs/PERFORMANCE.md).
_PAIRWISE_TOKENS = 4


def forward(x_TK: jax.Array, weight: BlockSparse) -> jax.Array:
    """``Y = X W``, ``[T, N]``."""
    x_nTk = _slabs(x_TK, weight.rows, weight.grid.block[0])
    multiply = _pairwise if x_TK.shape[0] <= _PAIRWISE_TOKENS else _products
    return _summed(multiply(x_nTk, weight.values), weight.cols, weight.grid.columns)


def backward(x_TK: jax.Array, weight: BlockSparse, gy_TN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``gx`` from the transposed blocks, summed by block row; ``gV_s = x[row_s]^T gy[col_s]``."""
    (bk, bn), active_n11 = weight.grid.block, active_mask(weight.index, weight.grid)[:, None, None]
    # A free slot reads no slab of gy: 0 is what its products are then.
    gy_nTn = jnp.where(active_n11, _slabs(gy_TN, weight.cols, bn), 0)
    gx_TK = _summed(_products(gy_nTn, weight.values.swapaxes(1, 2)), weight.rows, weight.grid.rows)
    return gx_TK, _products(_slabs(x_TK, weight.rows, bk).swapaxes(1, 2), gy_nTn)


def _slabs(activation_TK: jax.Array, places: jax.Array, side: int) -> jax.Array:
    """What every slot reads of an activation, ``[n, T, side]``; a place past the last reads the last."""
    slabs = activation_TK.reshape(activation_TK.shape[0], -1, side).swapaxes(0, 1)
    return slabs.at[places].get(mode="clip")


def _products(left: jax.Array, right: jax.Array) -> jax.Array:
    """``left[s] @ right[s]`` of every slot, in the accumulation dtype."""
    over = (((2,), (1,)), ((0,), (0,)))
    return lax.dot_general(left, right, over, preferred_element_type=accumulation_dtype(left.dtype))


def _summed(parts: jax.Array, places: jax.Array, lines: int) -> jax.Array:
    """Parts ``[n, T, side]`` added up by their place, ``[T, lines * side]``; those of free slots are dropped."""
    _, tokens, side = parts.shape
    total = jnp.zeros((lines, tokens, side), parts.dtype).at[places].add(parts, mode="drop")
    return total.swapaxes(0, 1).reshape(tokens, -1)


def _pairwise(x_nTk: jax.Array, values_nkm: jax.Array) -> jax.Array:
    """``_products`` for very few tokens: rows of the blocks times their entry of the slab, added up in pairs.

    One fused loop, which XLA gives to all cores of a CPU; a batched product of such small matrices stays on one, and a
    single core does not read as fast as the memory gives.
    """
    dtype = accumulation_dtype(x_nTk.dtype)

    def over(start: int, stop: int) -> jax.Array:
        if stop - start == 1:
            return x_nTk[:, :, start, None].astype(dtype) * values_nkm[:, None, start, :].astype(dtype)
        middle = (start + stop) // 2
        return over(start, middle) + over(middle, stop)

    return over(0, values_nkm.shape[1])


BATCHED = Implementation(forward, backward, supports_everything)
