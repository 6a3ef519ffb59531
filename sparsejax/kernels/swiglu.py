"""SwiGLU over two block-sparse weights: ``h = silu(x Wg) * (x Wu)`` (Shazeer, arXiv 2002.05202).

With ``g = x Wg``, ``u = x Wu`` and ``s = sigmoid(g)``, of which only g and u are kept for the backward pass:

    h = g s u        dg = dh u s (1 + g (1 - s))        du = dh g s

Gate and up are one product (``group.py``). Where nothing is differentiated and the implementation has a kernel for it,
neither g nor u is ever stored.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from sparsejax.kernels.api import IMPLEMENTATIONS, check_operands
from sparsejax.kernels.group import block_matmul_group
from sparsejax.kernels.implementation import accumulation_dtype
from sparsejax.topology.blocks import BlockGrid, BlockSparse, Index


def swiglu_matmul(
    x: jax.Array, gate: BlockSparse, up: BlockSparse, *, implementation: str, checkpoint_as: str
) -> jax.Array:
    """``silu(x Wg) * (x Wu)``, both products rounded to x's dtype.

    Args:
      x: ``[..., K]`` floating point; any leading axes.
      gate: ``Wg``, of grid shape ``(K, N)``.
      up: ``Wu``, on the same grid.
      implementation: a key of ``IMPLEMENTATIONS``.
      checkpoint_as: name of the two products for the policies of ``jax.checkpoint``.

    Returns:
      ``[..., N]`` in x's dtype.

    Raises:
      ValueError: the grids differ, and all that ``block_matmul`` raises.
      TypeError: x or values that are not floating point.
    """
    if gate.grid != up.grid:
        raise ValueError(f"gate on {gate.grid} and up on {up.grid}: must be the same")
    check_operands(x, gate, implementation)
    check_operands(x, up, implementation)
    x_TK = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    values, indices = (gate.values, up.values), (gate.index, up.index)
    product = _product if IMPLEMENTATIONS[implementation].swiglu is None else _one_kernel
    h_TN = product(implementation, checkpoint_as, gate.grid, x_TK, values, indices)
    return h_TN.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def swiglu(gate: jax.Array, up: jax.Array) -> jax.Array:
    """``silu(gate) * up`` in their dtype, computed in float32 or wider; keeps gate and up for the backward pass."""
    wide = accumulation_dtype(gate.dtype)
    return (jax.nn.silu(gate.astype(wide)) * up.astype(wide)).astype(gate.dtype)


def _swiglu_forward(gate: jax.Array, up: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return swiglu(gate, up), (gate, up)


def _swiglu_backward(residuals: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    dtype, wide = gradient.dtype, accumulation_dtype(gradient.dtype)
    g, u, dh = (array.astype(wide) for array in (*residuals, gradient))
    s = jax.nn.sigmoid(g)
    return (dh * u * s * (1 + g * (1 - s))).astype(dtype), (dh * g * s).astype(dtype)


swiglu.defvjp(_swiglu_forward, _swiglu_backward)

Pair = tuple[jax.Array, jax.Array]


def _product(
    name: str, checkpoint_as: str, grid: BlockGrid, x_TK: jax.Array, values: Pair, indices: tuple[Index, Index]
) -> jax.Array:
    weights = [BlockSparse(v, index, grid) for v, index in zip(values, indices, strict=True)]
    gate, up = block_matmul_group(x_TK, weights, implementation=name)
    return swiglu(checkpoint_name(gate, checkpoint_as), checkpoint_name(up, checkpoint_as))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _one_kernel(
    name: str, checkpoint_as: str, grid: BlockGrid, x_TK: jax.Array, values: Pair, indices: tuple[Index, Index]
) -> jax.Array:
    kernel = IMPLEMENTATIONS[name].swiglu
    assert kernel is not None
    gate, up = (BlockSparse(v.astype(x_TK.dtype), index, grid) for v, index in zip(values, indices, strict=True))
    with jax.named_scope(f"swiglu_matmul_{name}"):
        return kernel(x_TK, gate, up)


def _one_kernel_forward(
    name: str, checkpoint_as: str, grid: BlockGrid, x_TK: jax.Array, values: Pair, indices: tuple[Index, Index]
) -> tuple[jax.Array, Any]:
    # The backward pass needs both products, so the kernel that stores neither would only repeat them.
    return jax.vjp(lambda x, v: _product(name, checkpoint_as, grid, x, v, indices), x_TK, values)


def _one_kernel_backward(
    name: str, checkpoint_as: str, grid: BlockGrid, pull: Any, gradient: jax.Array
) -> tuple[Any, ...]:
    return *pull(gradient), None


_one_kernel.defvjp(_one_kernel_forward, _one_kernel_backward)
