"""Block-sparse products for Hopper GPUs (H100, H200): tensor cores fed by tensor copies, time following density.

    Y = X W        gX = gY W^T        gV = (X^T gY) at the active blocks

Y and gX are one kernel that walks block columns or block rows (``gpu_lines``). gV is a kernel over pairs of active
blocks (``gpu_pairs``, ``gpu_values``), which over all places also scores them (``gpu_block_norms``). Both are written
in Pallas for Mosaic GPU and divide a thread block into a warpgroup that copies and two that multiply
(``gpu_warpgroups``); sizes are in ``gpu_tiles``.

What is known about them, each by a test or a command of this project:

* Numerics of all products and of the block norms, barriers, ragged tokens, empty lines and free slots, in the
  interpreter of jax 0.11, where no race was found (``tests/kernels/gpu_interpreter_test.py``). It runs products at
  once, so it does not show that a stage of shared memory outlives the product that reads it.
* They lower for CUDA with jax 0.10 and 0.11, shared memory counted (``tests/kernels/pallas_gpu_test.py``).
* They compile to machine code for sm_90a without spilled registers (``benchmarks/gpu_compile.py``, optional).
* On a GPU nothing was run yet: numerics on real tensor cores wait for ``make test-gpu``, every time for
  ``benchmarks/kernels.py``, both on a Hopper GPU.

Pallas for Mosaic GPU takes no ``pl.CostEstimate``, so XLA counts no operations for these kernels.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sparsejax.hardware.chips import Chip
from sparsejax.kernels.gpu_tiles import SIDES, line_tiles, pairs_along_rows, value_tiles
from sparsejax.kernels.implementation import Implementation
from sparsejax.kernels.lines import Lines, column_lines, row_lines
from sparsejax.topology.blocks import BlockGrid, BlockIndex, BlockSparse, active_mask

# Names in hardware/chips.py of the chips with these tiles.
CHIPS = ("h100", "h200")

_DTYPES = ("bfloat16", "float16")
# Rows of the tiles that tensor copies move: the only thing the number of tokens is rounded up to.
_ROWS = 8


def implementation_for(chip: Chip) -> Implementation:
    """The products with the tiles of a Hopper chip. Y and gX come in the operands' dtype, gV in float32."""
    return Implementation(
        forward=functools.partial(_forward, chip),
        backward=functools.partial(_backward, chip),
        unsupported=functools.partial(_unsupported, chip),
        groups=_groups,
        block_norms=functools.partial(_block_norms, chip),
    )


def _groups(grid: BlockGrid, slots: int, tokens: int, dtype: DTypeLike) -> bool:
    """Always: gX of all weights of an input is then summed in registers, and one kernel balances all their lines."""
    del grid, slots, tokens, dtype
    return True


def _forward(chip: Chip, x_TK: jax.Array, weight: BlockSparse) -> jax.Array:
    return _line_product(chip, x_TK, weight, transposed=False)


def _backward(chip: Chip, x_TK: jax.Array, weight: BlockSparse, gy_TN: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _line_product(chip, gy_TN, weight, transposed=True), _value_gradient(chip, x_TK, weight, gy_TN)


def _line_product(chip: Chip, x_TC: jax.Array, weight: BlockSparse, *, transposed: bool) -> jax.Array:
    # Mosaic GPU takes a quarter of a second to import, and no other target needs it.
    from sparsejax.kernels.gpu_lines import line_product

    tiles = line_tiles(chip, weight.grid, x_TC.dtype, transposed=transposed)
    lines = _lines(weight, along_rows=transposed)
    return line_product(_whole_rows(x_TC), weight.values, lines, tiles, transposed=transposed)[: x_TC.shape[0]]


def _value_gradient(chip: Chip, x_TK: jax.Array, weight: BlockSparse, gy_TN: jax.Array) -> jax.Array:
    from sparsejax.kernels.gpu_values import value_gradient

    grid, slots = weight.grid, weight.values.shape[0]
    tiles = value_tiles(chip, grid, x_TK.dtype, tokens=x_TK.shape[0], slots=slots)
    along_rows = pairs_along_rows(grid)
    lines = _lines(weight, along_rows=along_rows)
    gvalues = value_gradient(_whole_rows(x_TK), _whole_rows(gy_TN), lines, grid.block, tiles, along_rows=along_rows)
    return jnp.where(active_mask(weight.index, grid)[:, None, None], gvalues, 0)


def _block_norms(chip: Chip, x_TK: jax.Array, gy_TN: jax.Array, grid: BlockGrid) -> jax.Array:
    from sparsejax.kernels.gpu_block_norms import block_norms

    tiles = value_tiles(chip, grid, x_TK.dtype, tokens=x_TK.shape[0], slots=grid.cells)
    tiles = dataclasses.replace(tiles, splits=1)
    return block_norms(_whole_rows(x_TK), _whole_rows(gy_TN), grid, tiles, along_rows=pairs_along_rows(grid))


def _lines(weight: BlockSparse, *, along_rows: bool) -> Lines:
    assert isinstance(weight.index, BlockIndex), "blocks of one element are refused"
    return (row_lines if along_rows else column_lines)(weight.index, weight.grid)


def _whole_rows(x_TC: jax.Array) -> jax.Array:
    """Padded with tokens of zeros to whole tiles of rows; they add nothing to gV."""
    return jnp.pad(x_TC, ((0, -x_TC.shape[0] % _ROWS), (0, 0)))


def _unsupported(chip: Chip, grid: BlockGrid, dtype: DTypeLike) -> str:
    if jnp.dtype(dtype).name not in _DTYPES:
        return f"the tensor cores it uses multiply {' or '.join(_DTYPES)}; cast the activations, or use transient"
    if not set(grid.block) <= set(SIDES):
        return f"its tiles are for blocks with sides of {' or '.join(map(str, SIDES))}; use transient"
    try:
        line_tiles(chip, grid, dtype, transposed=False)
        line_tiles(chip, grid, dtype, transposed=True)
        value_tiles(chip, grid, dtype, tokens=1, slots=1)
    except ValueError as error:
        return str(error)
    return ""
