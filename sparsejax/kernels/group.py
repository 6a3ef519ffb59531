"""Several weights of one input as one product: q, k and v, or gate and up.

    [Y_1 | Y_2 | ..] = X [W_1 | W_2 | ..]        gX = sum over w of gY_w W_w^T

The input is read once, and its gradient is summed over all the weights in float32 before it is rounded.
Only accelerator kernels gain by this; the other implementations make one product a weight.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax

from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul, check_operands, kernel_of, unsupported
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

    The weights are one weight for the time of the product if the implementation says that it gains by it (``groups``);
    their values are put together after the cast to x's dtype, so that both are one copy. Otherwise, as for a whole that
    it does not support, there is one product a weight; the results are the same.

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
    x_TK = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    if not joins(implementation, x_TK, weights):
        return tuple(block_matmul(x, weight, implementation=implementation) for weight in weights)
    values, indices = tuple(weight.values for weight in weights), tuple(weight.index for weight in weights)
    with jax.named_scope(f"block_matmul_group_{kernel_of(implementation)}"):
        outputs = _product(implementation, grids, x_TK, values, indices)
    return tuple(y_TN.reshape(*x.shape[:-1], -1) for y_TN in outputs)


def joins(name: str, x_TK: jax.Array, weights: Sequence[BlockSparse]) -> bool:
    """Whether the implementation makes one product of these weights."""
    if len(weights) == 1 or weights[0].grid.unstructured:
        return False
    grid = concatenated_grid([weight.grid for weight in weights])
    slots = sum(weight.values.shape[0] for weight in weights)
    if unsupported(name, grid, x_TK.dtype):
        return False
    return IMPLEMENTATIONS[name].groups(grid, slots, x_TK.shape[0], x_TK.dtype)


def _cast(x_TK: jax.Array, grids: Grids, values: Arrays, indices: tuple[Index, ...]) -> list[BlockSparse]:
    """The weights with values in x's dtype."""
    each = zip(values, indices, grids, strict=True)
    return [BlockSparse(v.astype(x_TK.dtype), index, grid) for v, index, grid in each]


def joint_product(name: str, grids: Grids, x_TK: jax.Array, values: Arrays, indices: tuple[Index, ...]) -> jax.Array:
    """``X [W_1 | W_2 | ..]`` in x's dtype, the columns as ``topology.concatenate`` orders them; not differentiable."""
    whole = concatenate(_cast(x_TK, grids, values, indices))
    return IMPLEMENTATIONS[name].forward(x_TK, whole).astype(x_TK.dtype)


def joint_gradients(
    name: str,
    grids: Grids,
    x_TK: jax.Array,
    values: Arrays,
    indices: tuple[Index, ...],
    gy_TN: jax.Array,
    each: Sequence[tuple[jax.Array, int]],
) -> tuple[jax.Array, Arrays]:
    """Gradients of x and of every weight's values, in their dtypes.

    Args:
      name: of the implementation.
      grids: the weights' grids.
      x_TK: the input.
      values: the weights' values.
      indices: the weights' indices.
      gy_TN: gradient of the joint product.
      each: the same weight by weight, as ``Implementation.value_gradient`` takes it: an array and the part of it.
    """
    implementation, weights = IMPLEMENTATIONS[name], _cast(x_TK, grids, values, indices)
    input_gradient, value_gradient = implementation.input_gradient, implementation.value_gradient
    if input_gradient is None or value_gradient is None:
        gx_TK, gslots = implementation.backward(x_TK, concatenate(weights), gy_TN)
        gvalues = split_slots(gslots, weights)
    else:
        gx_TK = input_gradient(concatenate(weights), gy_TN)
        gvalues = tuple(value_gradient(x_TK, w, *gy) for w, gy in zip(weights, each, strict=True))
    return gx_TK.astype(x_TK.dtype), tuple(g.astype(v.dtype) for g, v in zip(gvalues, values, strict=True))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(name: str, grids: Grids, x_TK: jax.Array, values: Arrays, indices: tuple[Index, ...]) -> Arrays:
    return split_columns(joint_product(name, grids, x_TK, values, indices), grids)


def _product_forward(
    name: str, grids: Grids, x_TK: jax.Array, values: Arrays, indices: tuple[Index, ...]
) -> tuple[Arrays, tuple[jax.Array, Arrays, tuple[Index, ...]]]:
    return _product(name, grids, x_TK, values, indices), (x_TK, values, indices)


def _product_backward(
    name: str, grids: Grids, residuals: tuple[jax.Array, Arrays, tuple[Index, ...]], gradients: Arrays
) -> tuple[Any, ...]:
    x_TK, values, indices = residuals
    with jax.named_scope(f"block_matmul_group_{kernel_of(name)}_backward"):
        gy_TN, each = join_columns(gradients, grids[0]), [(gy, 0) for gy in gradients]
        gx_TK, gvalues = joint_gradients(name, grids, x_TK, values, indices, gy_TN, each)
    return gx_TK, gvalues, None


_product.defvjp(_product_forward, _product_backward)
