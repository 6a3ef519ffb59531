"""What an implementation of the block-sparse product has to provide.

Axes of this room: T tokens (all leading axes of the input in one), K input width, N output width,
n slots of bk x bn values. An implementation sees one weight and two-dimensional activations; shape checks,
leading axes, dtypes and the gradient rule live once in ``api.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sparsejax.kernels.block_norms import panel_norms
from sparsejax.topology.blocks import BlockGrid, BlockSparse

Forward = Callable[[jax.Array, BlockSparse], jax.Array]
Backward = Callable[[jax.Array, BlockSparse, jax.Array], tuple[jax.Array, jax.Array]]
Support = Callable[[BlockGrid, DTypeLike], str]
InputGradient = Callable[[BlockSparse, jax.Array], jax.Array]
ValueGradient = Callable[[jax.Array, BlockSparse, jax.Array, int], jax.Array]
Groups = Callable[[BlockGrid, int, int, DTypeLike], bool]
BlockNorms = Callable[[jax.Array, jax.Array, BlockGrid], jax.Array]
SwigluGradient = Callable[[jax.Array, jax.Array, BlockGrid], jax.Array]


def never_groups(grid: BlockGrid, slots: int, tokens: int, dtype: DTypeLike) -> bool:
    """The ``groups`` of an implementation that gains nothing by larger weights."""
    del grid, slots, tokens, dtype
    return False


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to compute ``Y = X W`` and its two gradients.

    Attributes:
      forward: ``(x [T, K], weight) -> y [T, N]`` in the accumulation dtype. ``weight.values`` has x's dtype.
      backward: ``(x [T, K], weight, gy [T, N]) -> (gx [T, K], gvalues [n, bk, bn])``, both in the accumulation
        dtype: ``gx = gy W^T`` and ``gvalues`` the blocks of ``x^T gy`` at the active places, exactly 0 in free slots.
      unsupported: ``(grid, dtype of the operands) -> reason``; the empty string where both are supported.
      groups: ``(grid, slots, tokens, dtype) -> bool``, whether weights of one input that make up a weight of that
        grid and number of slots are better multiplied as that one weight (``group.py``).
      input_gradient: ``(weight, gy [T, N]) -> gx``, the first half of ``backward``, where several weights multiplied as
        one are better off with values' gradients of their own; None where ``backward`` serves them all.
      value_gradient: ``(x [T, K], weight, gy [T, p N], part) -> gvalues``, the second half, given with the first. The
        gradients of p outputs of equal width may stand side by side; ``part`` says which is the weight's.
      block_norms: ``(x [T, K], gy [T, N], grid) -> sum |x^T gy|`` of every block, ``[K / bk, N / bn]`` float32.
      swiglu_gradient: ``(y [T, 2 N], gh [T, N], grid of one weight) -> gy [T, 2 N]``, the gradient of gate and up
        side by side, where plain XLA would make them apart and then copy; None otherwise.
    """

    forward: Forward
    backward: Backward
    unsupported: Support
    groups: Groups = never_groups
    input_gradient: InputGradient | None = None
    value_gradient: ValueGradient | None = None
    block_norms: BlockNorms = panel_norms
    swiglu_gradient: SwigluGradient | None = None


def supports_everything(grid: BlockGrid, dtype: DTypeLike) -> str:
    """The ``unsupported`` of an implementation that takes any grid and any floating-point dtype."""
    del grid, dtype
    return ""


def accumulation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype products of ``dtype`` operands are summed in: float32, or wider if the operands are."""
    return jnp.promote_types(dtype, jnp.float32)


def dot(left: jax.Array, right: jax.Array) -> jax.Array:
    """``left @ right`` of two matrices of one dtype, summed and returned in the accumulation dtype."""
    return jnp.dot(left, right, preferred_element_type=accumulation_dtype(left.dtype))
