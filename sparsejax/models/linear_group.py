"""Layers that read one input, q, k and v or gate and up: one product where all are blocks of one implementation.

Axes: B batch, T sequence, D hidden, F MLP width.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from sparsejax.kernels.group import block_matmul_group
from sparsejax.kernels.swiglu import swiglu
from sparsejax.kernels.swiglu_matmul import swiglu_matmul
from sparsejax.models.sparse_linear import LINEAR_OUTPUT, SparseLinear


def apply_group(x: jax.Array, layers: Sequence[nnx.Module]) -> tuple[jax.Array, ...]:
    """``layer(x)`` for every layer."""
    sparse = _alike(layers)
    if not sparse:
        return tuple(layer(x) for layer in layers)
    first = sparse[0]
    weights = [layer.weight for layer in sparse]
    outputs = block_matmul_group(x.astype(first.compute_dtype), weights, implementation=first.implementation)
    return tuple(checkpoint_name(y, LINEAR_OUTPUT) for y in outputs)


def apply_gated(x_BTD: jax.Array, gate: nnx.Module, up: nnx.Module) -> jax.Array:
    """``silu(gate(x)) * up(x)``, ``[B, T, F]``."""
    sparse = _alike((gate, up))
    if not sparse:
        return swiglu(gate(x_BTD), up(x_BTD))
    first, second = sparse
    x_BTD = x_BTD.astype(first.compute_dtype)
    return swiglu_matmul(
        x_BTD, first.weight, second.weight, implementation=first.implementation, checkpoint_as=LINEAR_OUTPUT
    )


def _alike(layers: Sequence[nnx.Module]) -> list[SparseLinear]:
    """The layers if their weights can be multiplied together, nothing otherwise.

    Scores are taken weight by weight. Free slots cost time in a joint product (``topology/concatenate.py``), so
    weights whose counts move keep products of their own.
    """
    sparse = [layer for layer in layers if isinstance(layer, SparseLinear) and layer.is_plain_blocks]
    same = len({layer.implementation for layer in sparse}) == 1
    return sparse if same and len(sparse) == len(layers) else []
