"""The product whose backward pass also says how much the gradient wants every block, active or not.

It is for the program that scores places before gradients decide what grows: forward and backward are those of
``block_matmul``, and the scores come from ``Implementation.block_norms``, so no dense weight or gradient exists.
Scores are right only if x holds every token of the batch, on one device: absolute values of parts do not add up.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax

from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul, check_operands, kernel_of
from sparsejax.topology.blocks import BlockGrid, BlockSparse, Index


def scored_matmul(x: jax.Array, weight: BlockSparse, probe_RC: jax.Array, *, implementation: str) -> jax.Array:
    """``y = x W`` as ``block_matmul``; the gradient of ``probe_RC`` is ``sum |X^T gY|`` over every block.

    Args:
      x: ``[..., K]`` floating point; any leading axes.
      weight: one weight of grid shape ``(K, N)``.
      probe_RC: float32 ``[K / bk, N / bn]``; its values do not matter.
      implementation: a key of ``IMPLEMENTATIONS``.

    Returns:
      ``[..., N]`` in x's dtype.

    Raises:
      ValueError: the probe has another shape than the grid, and all that ``block_matmul`` raises.
      TypeError: x or the values are not floating point.
    """
    grid = weight.grid
    if probe_RC.shape != (grid.rows, grid.columns):
        raise ValueError(f"probe of shape {probe_RC.shape}: the grid has {(grid.rows, grid.columns)} blocks")
    check_operands(x, weight, implementation)
    x_TK = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y_TN = _product(implementation, grid, x_TK, weight.values, probe_RC, weight.index)
    return y_TN.reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(
    name: str, grid: BlockGrid, x_TK: jax.Array, values: jax.Array, probe_RC: jax.Array, index: Index
) -> jax.Array:
    del probe_RC
    return block_matmul(x_TK, BlockSparse(values, index, grid), implementation=name)


def _product_forward(
    name: str, grid: BlockGrid, x_TK: jax.Array, values: jax.Array, probe_RC: jax.Array, index: Index
) -> tuple[jax.Array, Any]:
    del probe_RC

    def product(x_TK: jax.Array, values: jax.Array) -> jax.Array:
        return block_matmul(x_TK, BlockSparse(values, index, grid), implementation=name)

    y_TN, pull = jax.vjp(product, x_TK, values)
    return y_TN, (x_TK, pull)


def _product_backward(name: str, grid: BlockGrid, residuals: Any, gy_TN: jax.Array) -> tuple[Any, ...]:
    x_TK, pull = residuals
    with jax.named_scope(f"block_norms_{kernel_of(name)}"):
        norms_RC = IMPLEMENTATIONS[name].block_norms(x_TK, gy_TN, grid)
    return *pull(gy_TN), norms_RC, None


_product.defvjp(_product_forward, _product_backward)
