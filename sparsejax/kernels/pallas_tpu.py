"""The block-sparse product on TPU: the kernels of ``tpu_lines`` and ``tpu_values`` as one implementation a chip.

Numerics are checked in the interpreter that simulates a TPU's memories and copies; every product is compiled by the
TPU's own compiler for v4, v5e, v5p, v6e and tpu7x. Axes: T tokens, K and N the widths, n slots.
"""

from __future__ import annotations

import functools

import jax

from sparsejax.hardware.chips import Chip
from sparsejax.kernels import tpu_tiles, tpu_values
from sparsejax.kernels.implementation import Implementation
from sparsejax.kernels.lines import column_lines, row_lines, stored_columns
from sparsejax.kernels.tpu_block_norms import block_norms
from sparsejax.kernels.tpu_lines import line_product
from sparsejax.kernels.tpu_swiglu import swiglu_gradient
from sparsejax.topology.blocks import BlockIndex, BlockSparse

CHIPS = ("v4", "v5e", "v5p", "v6e", "tpu7x")


def forward(chip: Chip, x_TK: jax.Array, weight: BlockSparse) -> jax.Array:
    """``Y = X W``, ``[T, N]`` in the dtype of x, summed in float32."""
    grid, index = weight.grid, _block_index(weight)
    tiles = tpu_tiles.line_tiles(chip, grid, weight.values.shape[0], x_TK.shape[0], x_TK.dtype, by_row=False)
    lines = column_lines(index, grid)
    return line_product(x_TK, weight.values, lines, tiles, by_row=False, name="block_matmul_forward")


def input_gradient(chip: Chip, weight: BlockSparse, gy_TN: jax.Array) -> jax.Array:
    """``gX = gY W^T``, ``[T, K]`` in the dtype of gY, summed in float32."""
    grid, index = weight.grid, _block_index(weight)
    tiles = tpu_tiles.line_tiles(chip, grid, weight.values.shape[0], gy_TN.shape[0], gy_TN.dtype, by_row=True)
    lines = row_lines(index, grid)
    return line_product(gy_TN, weight.values, lines, tiles, by_row=True, name="block_matmul_input_gradient")


def value_gradient(chip: Chip, x_TK: jax.Array, weight: BlockSparse, gy_TN: jax.Array, part: int) -> jax.Array:
    """The blocks of ``X^T gY`` at the active places, float32; see ``Implementation.value_gradient``."""
    grid, index = weight.grid, _block_index(weight)
    tiles = tpu_tiles.value_tiles(chip, grid, weight.values.shape[0], x_TK.shape[0], x_TK.dtype)
    return tpu_values.value_gradient(
        x_TK,
        gy_TN,
        stored_columns(index, grid),
        index.rows,
        grid.block,
        tiles,
        name="block_matmul_value_gradient",
        part=part,
        parts=gy_TN.shape[1] // grid.shape[1],
    )


def backward(chip: Chip, x_TK: jax.Array, weight: BlockSparse, gy_TN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both gradients."""
    return input_gradient(chip, weight, gy_TN), value_gradient(chip, x_TK, weight, gy_TN, part=0)


def _block_index(weight: BlockSparse) -> BlockIndex:
    if not isinstance(weight.index, BlockIndex):
        raise TypeError(tpu_tiles.unsupported(weight.grid, weight.values.dtype))
    return weight.index


def implementation_for(chip: Chip) -> Implementation:
    """The implementation with the tiles of one TPU."""
    return Implementation(
        forward=functools.partial(forward, chip),
        backward=functools.partial(backward, chip),
        unsupported=tpu_tiles.unsupported,
        groups=functools.partial(tpu_tiles.groups, chip),
        input_gradient=functools.partial(input_gradient, chip),
        value_gradient=functools.partial(value_gradient, chip),
        block_norms=functools.partial(block_norms, chip),
        swiglu_gradient=swiglu_gradient,
    )
