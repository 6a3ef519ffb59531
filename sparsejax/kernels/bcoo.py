"""The product through ``jax.experimental.sparse``: for interchange and inspection.

Every element carries its own coordinates and every product gathers one activation row an element, so training
through it is many times slower than dense and needs temporaries of (active elements) x T.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.sparse import BCOO, bcoo_dot_general, bcoo_dot_general_sampled

from sparsejax.kernels.implementation import Implementation, accumulation_dtype, supports_everything
from sparsejax.topology.bcoo import element_coordinates, to_bcoo
from sparsejax.topology.blocks import BlockSparse, active_mask


def _matrix(weight: BlockSparse) -> BCOO:
    matrix = to_bcoo(weight)
    wide = accumulation_dtype(matrix.dtype)
    return BCOO((matrix.data.astype(wide), matrix.indices), shape=matrix.shape, unique_indices=True)


def forward(x_TK: jax.Array, weight: BlockSparse) -> jax.Array:
    """``Y^T = W^T X^T``: the sparse operand contracts its rows."""
    x_TK = x_TK.astype(accumulation_dtype(x_TK.dtype))
    return bcoo_dot_general(_matrix(weight), x_TK, dimension_numbers=(((0,), (1,)), ((), ()))).T


def backward(x_TK: jax.Array, weight: BlockSparse, gy_TN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``gx^T = W gy^T`` and ``x^T gy`` sampled at the stored coordinates."""
    wide = accumulation_dtype(x_TK.dtype)
    x_TK, gy_TN = x_TK.astype(wide), gy_TN.astype(wide)
    gx_TK = bcoo_dot_general(_matrix(weight), gy_TN, dimension_numbers=(((1,), (1,)), ((), ()))).T
    indices = element_coordinates(weight.index, weight.grid)
    sampled = bcoo_dot_general_sampled(x_TK, gy_TN, indices, dimension_numbers=(((0,), (0,)), ((), ())))
    active = active_mask(weight.index, weight.grid)[:, None, None]
    return gx_TK, jnp.where(active, sampled.reshape(weight.values.shape), 0)


BCOO_IMPLEMENTATION = Implementation(forward, backward, supports_everything)
