"""The gradient of SwiGLU on TPU, gate and up side by side: one pass over memory.

XLA makes the two gradients as arrays of their own and copies them together for the product that takes them both,
which moves as many bytes again. Here a grid step writes one of them straight to its place.

Axes: T tokens, t tokens of a step, N width of gate and of up, S shares of w = N / S columns. The products and their
gradients ``[T, 2 N]`` are ``[gate share 0 | up share 0 | gate share 1 | ..]``, in tiles ``[t, w]``.
"""

from __future__ import annotations

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sparsejax.kernels.swiglu import gate_gradient, up_gradient
from sparsejax.topology.blocks import BlockGrid

# Numbers of a tile: enough to hide the start of its copies, few enough for the VMEM of every TPU.
_TILE = 2**18
_SUBLANES = 16


def swiglu_gradient(y_TN: jax.Array, gh_TN: jax.Array, grid: BlockGrid) -> jax.Array:
    """``[T, 2 N]``, see ``Implementation.swiglu_gradient``; the formulas are those of ``swiglu.py``."""
    tokens, shares = y_TN.shape[0], grid.shards if grid.shard_axis == "columns" else 1
    width = grid.shape[1] // shares
    rows = max(_SUBLANES, min(tokens, _TILE // width) // _SUBLANES * _SUBLANES)

    def tile(column: int) -> pl.BlockSpec:
        return pl.BlockSpec((rows, width), lambda i, share, _part: (i, 2 * share + column))

    return pl.pallas_call(
        _kernel,
        grid=(pl.cdiv(tokens, rows), shares, 2),
        in_specs=[tile(0), tile(1), pl.BlockSpec((rows, width), lambda i, share, _part: (i, share))],
        out_specs=pl.BlockSpec((rows, width), lambda i, share, part: (i, 2 * share + part)),
        out_shape=jax.ShapeDtypeStruct(y_TN.shape, gh_TN.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=12 * y_TN.size,
            bytes_accessed=5 * gh_TN.size * gh_TN.dtype.itemsize,
            transcendentals=y_TN.size,
        ),
        name="swiglu_gradient",
    )(y_TN, y_TN, gh_TN)


def _kernel(gate_ref: jax.Ref, up_ref: jax.Ref, gh_ref: jax.Ref, gy_ref: jax.Ref) -> None:
    part = pl.program_id(2)

    @pl.when(part == 0)
    def _of_gate() -> None:
        gy_ref[...] = gate_gradient(gate_ref[...], up_ref[...], gh_ref[...])

    @pl.when(part == 1)
    def _of_up() -> None:
        gy_ref[...] = up_gradient(gate_ref[...], gh_ref[...])
