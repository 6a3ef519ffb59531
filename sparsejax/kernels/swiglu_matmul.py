"""SwiGLU over two block-sparse weights: ``h = silu(x Wg) * (x Wu)``.

Where gate and up are one product (``group.py``), they stay side by side from its output to its gradient: nothing
between the passes is cut apart or put together again.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul, check_operands, kernel_of
from sparsejax.kernels.group import joins, joint_gradients, joint_product
from sparsejax.kernels.swiglu import gate_gradient, swiglu, up_gradient
from sparsejax.topology.blocks import BlockGrid, BlockSparse, Index
from sparsejax.topology.concatenate import join_columns, split_columns

Pair = tuple[jax.Array, jax.Array]


def swiglu_matmul(
    x: jax.Array, gate: BlockSparse, up: BlockSparse, *, implementation: str, checkpoint_as: str
) -> jax.Array:
    """``silu(x Wg) * (x Wu)``, both products rounded to x's dtype. Between the passes x and both products are kept.

    Args:
      x: ``[..., K]`` floating point; any leading axes.
      gate: ``Wg``, of grid shape ``(K, N)``.
      up: ``Wu``, on the same grid.
      implementation: a key of ``IMPLEMENTATIONS``.
      checkpoint_as: name of the products for the policies of ``jax.checkpoint``.

    Returns:
      ``[..., N]`` in x's dtype.

    Raises:
      ValueError: the grids differ, and all that ``block_matmul`` raises.
      TypeError: x or values that are not floating point.
    """
    if gate.grid != up.grid:
        raise ValueError(f"gate on {gate.grid} and up on {up.grid}: must be the same")
    for weight in (gate, up):
        check_operands(x, weight, implementation)
    x_TK = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    if joins(implementation, x_TK, (gate, up)):
        values, indices = (gate.values, up.values), (gate.index, up.index)
        with jax.named_scope(f"swiglu_matmul_{kernel_of(implementation)}"):
            h_TN = _joint(implementation, checkpoint_as, gate.grid, x_TK, values, indices)
        return h_TN.reshape(*x.shape[:-1], -1)
    products = (block_matmul(x, weight, implementation=implementation) for weight in (gate, up))
    return swiglu(*(checkpoint_name(y, checkpoint_as) for y in products))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _joint(
    name: str, checkpoint_as: str, grid: BlockGrid, x_TK: jax.Array, values: Pair, indices: tuple[Index, Index]
) -> jax.Array:
    y_TN = joint_product(name, (grid, grid), x_TK, values, indices)
    return swiglu(*split_columns(y_TN, (grid, grid)))


def _joint_forward(
    name: str, checkpoint_as: str, grid: BlockGrid, x_TK: jax.Array, values: Pair, indices: tuple[Index, Index]
) -> tuple[jax.Array, Any]:
    y_TN = checkpoint_name(joint_product(name, (grid, grid), x_TK, values, indices), checkpoint_as)
    return swiglu(*split_columns(y_TN, (grid, grid))), (x_TK, values, indices, y_TN)


def _joint_backward(
    name: str, checkpoint_as: str, grid: BlockGrid, residuals: Any, gh_TN: jax.Array
) -> tuple[Any, ...]:
    x_TK, values, indices, y_TN = residuals
    kernel = IMPLEMENTATIONS[name].swiglu_gradient
    with jax.named_scope(f"swiglu_matmul_{kernel_of(name)}_backward"):
        gy_TN = (kernel or _gradient)(y_TN, gh_TN, grid)
        each = [(gy_TN, 0), (gy_TN, 1)]
        if grid.shards > 1:
            each = [(gy, 0) for gy in split_columns(gy_TN, (grid, grid))]
        gx_TK, gvalues = joint_gradients(name, (grid, grid), x_TK, values, indices, gy_TN, each)
    return gx_TK, gvalues, None


_joint.defvjp(_joint_forward, _joint_backward)


def _gradient(y_TN: jax.Array, gh_TN: jax.Array, grid: BlockGrid) -> jax.Array:
    gate, up = split_columns(y_TN, (grid, grid))
    return join_columns((gate_gradient(gate, up, gh_TN), up_gradient(gate, gh_TN)), grid)
