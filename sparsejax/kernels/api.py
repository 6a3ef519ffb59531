"""``block_matmul``: the product of activations with one block-sparse weight, by a named implementation.

Legend: T tokens, K input width, N output width, n slots of bk x bn values.

    Y = X W          gX = gY W^T          gV = (X^T gY) at the active blocks

Only x and values have gradients: an index is integers, and growth rules that look at inactive blocks have their
own program. Residuals of the forward are x, values and the index, never anything dense.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sparsejax.hardware.chips import chip_named
from sparsejax.kernels import pallas_gpu, pallas_tpu
from sparsejax.kernels.batched import BATCHED
from sparsejax.kernels.bcoo import BCOO_IMPLEMENTATION
from sparsejax.kernels.implementation import Implementation
from sparsejax.kernels.reference import REFERENCE
from sparsejax.kernels.transient import TRANSIENT
from sparsejax.kernels.xla import XLA
from sparsejax.topology.blocks import BlockGrid, BlockSparse, Index

IMPLEMENTATIONS: dict[str, Implementation] = {
    "reference": REFERENCE,
    "transient": TRANSIENT,
    "xla": XLA,
    "bcoo": BCOO_IMPLEMENTATION,
    "batched": BATCHED,
    **{f"pallas_tpu@{chip}": pallas_tpu.implementation_for(chip_named(chip)) for chip in pallas_tpu.CHIPS},
    **{f"pallas_gpu@{chip}": pallas_gpu.implementation_for(chip_named(chip)) for chip in pallas_gpu.CHIPS},
}


def unsupported(implementation: str, grid: BlockGrid, dtype: DTypeLike) -> str:
    """Why the implementation cannot take the grid with operands of that dtype; the empty string if it can.

    Raises:
      ValueError: the name is unknown; the message lists the legal ones.
    """
    if implementation not in IMPLEMENTATIONS:
        legal = ", ".join(IMPLEMENTATIONS)
        raise ValueError(f"implementation={implementation!r}: unknown; legal names are {legal} (auto is for resolve)")
    return IMPLEMENTATIONS[implementation].unsupported(grid, dtype)


def kernel_of(implementation: str) -> str:
    """The implementation's name without its chip, for scopes: XLA cuts the name of an operation at an @."""
    return implementation.partition("@")[0]


def described(grid: BlockGrid, dtype: DTypeLike) -> str:
    """Shape, block and dtype as errors name them."""
    (K, N), (bk, bn) = grid.shape, grid.block
    return f"{K}x{N} in blocks of {bk}x{bn}, {jnp.dtype(dtype).name}"


def block_matmul(x: jax.Array, weight: BlockSparse, *, implementation: str) -> jax.Array:
    """``y = x W`` for one block-sparse weight.

    The product runs with the values cast to x's dtype and sums in float32 (float64 for float64 inputs). The gradient
    for the values comes back in their own dtype straight from that sum, so float32 values under bfloat16 activations
    get an unrounded gradient. Precision of float32 products follows ``jax.default_matmul_precision``.

    Args:
      x: ``[..., K]`` floating point; any leading axes.
      weight: a ``BlockSparse`` of grid shape ``(K, N)``. One weight: stacked layers go through ``vmap`` or ``scan``.
      implementation: a key of ``IMPLEMENTATIONS``. ``auto`` is resolved on the host by ``kernels.auto.resolve``.

    Returns:
      ``[..., N]`` in x's dtype.

    Raises:
      ValueError: unknown implementation, one that does not support the grid, or shapes that do not fit.
      TypeError: x or the values are not floating point.
    """
    check_operands(x, weight, implementation)
    K, N = weight.grid.shape
    x_TK = x.reshape(math.prod(x.shape[:-1]), K)
    with jax.named_scope(f"block_matmul_{kernel_of(implementation)}"):
        y_TN = _product(implementation, weight.grid, x_TK, weight.values, weight.index)
    return y_TN.reshape(*x.shape[:-1], N)


def check_operands(x: jax.Array, weight: BlockSparse, implementation: str) -> None:
    """Raise what ``block_matmul`` raises for operands that it cannot take."""
    grid, values = weight.grid, weight.values
    for name, array in (("x", x), ("values", values)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name} of dtype {array.dtype}: must be floating point")
    reason = unsupported(implementation, grid, x.dtype)
    if reason:
        raise ValueError(f"implementation={implementation!r} does not support {described(grid, x.dtype)}: {reason}")
    if x.ndim < 1 or x.shape[-1] != grid.shape[0]:
        raise ValueError(f"x of shape {x.shape}: the last axis must be the weight's input width K={grid.shape[0]}")
    if values.ndim != 3 or values.shape[1:] != grid.block:
        raise ValueError(
            f"values of shape {values.shape}: must be [n, {grid.block[0]}, {grid.block[1]}]; "
            "stacked layers go through vmap or scan"
        )
    if values.shape[0] % grid.shards:
        raise ValueError(f"{values.shape[0]} slots do not divide into {grid.shards} shares")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(name: str, grid: BlockGrid, x_TK: jax.Array, values: jax.Array, index: Index) -> jax.Array:
    weight = BlockSparse(values.astype(x_TK.dtype), index, grid)
    return IMPLEMENTATIONS[name].forward(x_TK, weight).astype(x_TK.dtype)


def _product_forward(
    name: str, grid: BlockGrid, x_TK: jax.Array, values: jax.Array, index: Index
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Index]]:
    return _product(name, grid, x_TK, values, index), (x_TK, values, index)


def _product_backward(
    name: str, grid: BlockGrid, residuals: tuple[jax.Array, jax.Array, Index], gy_TN: jax.Array
) -> tuple[Any, ...]:
    x_TK, values, index = residuals
    weight = BlockSparse(values.astype(x_TK.dtype), index, grid)
    with jax.named_scope(f"block_matmul_{kernel_of(name)}_backward"):
        gx_TK, gvalues = IMPLEMENTATIONS[name].backward(x_TK, weight, gy_TN)
    return gx_TK.astype(x_TK.dtype), gvalues.astype(values.dtype), None


_product.defvjp(_product_forward, _product_backward)
