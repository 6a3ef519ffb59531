"""The definition of the block-sparse product: multiply by the dense matrix, differentiate what was written.

It holds a dense ``[K, N]`` weight and its dense gradient; it exists to be obviously right.
"""

from __future__ import annotations

import dataclasses

import jax

from sparsejax.kernels.implementation import Implementation, accumulation_dtype, supports_everything
from sparsejax.topology.blocks import BlockSparse, to_dense


def forward(x_TK: jax.Array, weight: BlockSparse) -> jax.Array:
    """``Y = X W`` in the accumulation dtype, ``[T, N]``."""
    wide = accumulation_dtype(x_TK.dtype)
    return x_TK.astype(wide) @ to_dense(weight).astype(wide)


def backward(x_TK: jax.Array, weight: BlockSparse, gy_TN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both gradients by automatic differentiation of ``forward``."""
    wide = accumulation_dtype(x_TK.dtype)

    def product(x: jax.Array, values: jax.Array) -> jax.Array:
        return forward(x, dataclasses.replace(weight, values=values))

    _, gradients = jax.vjp(product, x_TK.astype(wide), weight.values.astype(wide))
    gx_TK, gvalues = gradients(gy_TN.astype(wide))
    return gx_TK, gvalues


REFERENCE = Implementation(forward, backward, supports_everything)
