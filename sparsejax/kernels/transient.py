"""One dense weight at a time: build it, use it in one dense product, drop it.

Time is that of the dense product, whatever the density; memory between layers is that of the active blocks,
because the only residuals are the input and the values. It is the right choice where sparse products cannot win:
unstructured weights, small blocks, high density, and platforms without a kernel of their own.
"""

from __future__ import annotations

import jax

from sparsejax.kernels.implementation import Implementation, dot, supports_everything
from sparsejax.topology.blocks import BlockSparse, gather_blocks, to_dense


def forward(x_TK: jax.Array, weight: BlockSparse) -> jax.Array:
    """``Y = X W`` through a dense W that lives for this product only."""
    return dot(x_TK, to_dense(weight))


def backward(x_TK: jax.Array, weight: BlockSparse, gy_TN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``gx = gy W^T``; the values' gradient is read out of the dense ``X^T gy``, which is then dropped."""
    gx_TK = dot(gy_TN, to_dense(weight).T)
    return gx_TK, gather_blocks(dot(x_TK.T, gy_TN), weight.index, weight.grid)


TRANSIENT = Implementation(forward, backward, supports_everything)
