"""Several weights of one input as one product: q, k and v, or gate and up.

    [Y_1 | Y_2 | ..] = X [W_1 | W_2 | ..]        gX = sum over w of gY_w W_w^T

The input is read once, and its gradient is summed over all the weights in float32 before it is rounded.
Only accelerator kernels gain by this; the other implementations make one product a weight.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.typing import DTypeLike

from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul, check_operands, unsupported
from sparsejax.topology.blocks import BlockGrid, BlockSparse, Index
from sparsejax.topology.concatenate import (
    check_alike,
    concatenate,
    concatenated_grid,
    join_columns,
    split_columns,
    split_slots,
)

Grids = tuple[BlockGrid, ...]
Arrays = tuple[jax.Array, ...]


def block_matmul_group(x: jax.Array, weights: Sequence[BlockSparse], *, implementation: str) -> Arrays:
    """``(x W_1, x W_2, ..)``, each as ``block_matmul`` computes it.

    The weights are one weight for the time of the product if the implementation gains by it (``groups``) and supports
    that weight's grid; their values are put together after the cast to x's dtype, so that both are one copy.

    Args:
      x: ``[..., K]`` floating point; any leading axes.
      weights: at least one, of the same input width, block and shares.
      implementation: a key of ``IMPLEMENTATIONS``.

    Returns:
      One ``[..., N_w]`` a weight, in x's dtype.

    Raises:
      ValueError: weights that differ in input width, block or shares, and all that ``block_matmul`` raises.
      TypeError: x or values that are not floating point.
    """
    grids = tuple(weight.grid for weight in weights)
    check_alike(grids)
    for weight in weights:
        check_operands(x, weight, implementation)
    if not groups(implementation, grids, x.dtype):
        return tuple(block_matmul(x, weight, implementation=implementation) for weight in weights)
    x_TK = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    values, indices = tuple(weight.values for weight in weights), tuple(weight.index for weight in weights)
    with jax.named_scope(f"block_matmul_group_{implementation}"):
        outputs = _product(implementation, grids, x_TK, values, indices)
    return tuple(y_TN.reshape(*x.shape[:-1], -1) for y_TN in outputs)


def groups(implementation: str, grids: Sequence[BlockGrid], dtype: DTypeLike) -> bool:
    """Whether weights on these grids become one product."""
    if len(grids) == 1 or not IMPLEMENTATIONS[implementation].groups:
        return False
    return not unsupported(implementation, concatenated_grid(grids), dtype)


def group_forward(name: str, x_TK: jax.Array, weights: Sequence[BlockSparse]) -> Arrays:
    """The products ``[T, N_w]`` in x's dtype by one call of the implementation."""
    y_TN = IMPLEMENTATIONS[name].forward(x_TK, concatenate(_cast(weights, x_TK)))
    return split_columns(y_TN.astype(x_TK.dtype), [weight.grid for weight in weights])


def group_backward(
    name: str, x_TK: jax.Array, weights: Sequence[BlockSparse], gradients: Sequence[jax.Array]
) -> tuple[jax.Array, Arrays]:
    """Gradients of x, in its dtype, and of every weight's values, in theirs, from those of the products."""
    whole = concatenate(_cast(weights, x_TK))
    gx_TK, gslots = IMPLEMENTATIONS[name].backward(x_TK, whole, join_columns(gradients, whole.grid))
    gvalues = split_slots(gslots, weights)
    cast = tuple(g.astype(weight.values.dtype) for g, weight in zip(gvalues, weights, strict=True))
    return gx_TK.astype(x_TK.dtype), cast


def _cast(weights: Sequence[BlockSparse], x_TK: jax.Array) -> list[BlockSparse]:
    return [dataclasses.replace(weight, values=weight.values.astype(x_TK.dtype)) for weight in weights]


def _weights(grids: Grids, values: Arrays, indices: tuple[Index, ...]) -> list[BlockSparse]:
    return [BlockSparse(*each) for each in zip(values, indices, grids, strict=True)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(name: str, grids: Grids, x_TK: jax.Array, values: Arrays, indices: tuple[Index, ...]) -> Arrays:
    return group_forward(name, x_TK, _weights(grids, values, indices))


def _product_forward(
    name: str, grids: Grids, x_TK: jax.Array, values: Arrays, indices: tuple[Index, ...]
) -> tuple[Arrays, tuple[jax.Array, Arrays, tuple[Index, ...]]]:
    return _product(name, grids, x_TK, values, indices), (x_TK, values, indices)


def _product_backward(
    name: str, grids: Grids, residuals: tuple[jax.Array, Arrays, tuple[Index, ...]], gradients: Arrays
) -> tuple[Any, ...]:
    x_TK, values, indices = residuals
    with jax.named_scope(f"block_matmul_group_{name}_backward"):
        gx_TK, gvalues = group_backward(name, x_TK, _weights(grids, values, indices), gradients)
    return gx_TK, gvalues, None


_product.defvjp(_product_forward, _product_backward)
