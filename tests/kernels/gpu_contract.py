"""The contract of the kernels for GPUs, in a form that runs in the interpreter here and on a GPU in ``tests/gpu``.

Blocks have sides of 64 and 128, operands are bfloat16 or float16, results are compared with float64 numpy.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul
from sparsejax.topology.blocks import BlockGrid, BlockSparse, active_mask
from tests.kernels.cases import (
    Case,
    balanced,
    blocks_float64,
    cross,
    dense_float64,
    full,
    make_weight,
    scattered,
    single,
)

NAME = "pallas_gpu@h200"

# Small enough for the interpreter. Tokens: below one tile of rows, not a multiple of it, more than one token tile.
CASES = {
    "one_block": Case(BlockGrid((256, 384), (128, 128)), single, free=0, tokens=1),
    "one_line": Case(BlockGrid((128, 576), (128, 64)), full, free=1, tokens=9),
    "square": Case(BlockGrid((512, 384), (128, 128)), scattered, free=2, tokens=300),
    "small_square": Case(BlockGrid((320, 256), (64, 64)), scattered, free=2, tokens=264),
    "wide": Case(BlockGrid((192, 384), (64, 128)), cross, free=1, tokens=16),
    "tall": Case(BlockGrid((384, 192), (128, 64)), cross, free=1, tokens=65),
    "column_shares": Case(BlockGrid((256, 512), (64, 128), 2, "columns"), scattered, free=1, tokens=20),
    "row_shares": Case(BlockGrid((512, 256), (128, 64), 2, "rows"), scattered, free=1, tokens=40),
    "balanced": Case(BlockGrid((256, 384), (64, 128), balance="column"), balanced(7), free=0, tokens=24),
}

# Of the maximum. Y and gX are rounded to 8 bits or more; gV never is, and products of the operands are exact.
TOLERANCES = {"y": 1e-2, "gx": 1e-2, "gvalues": 1e-5, "norms": 1e-5}


def draw(shape: tuple[int, ...], seed: int, dtype: jnp.dtype) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def product_and_gradients(name: str, x: jax.Array, weight: BlockSparse, gy: jax.Array):
    """``(y, gx, gvalues)`` of one program."""

    def run(x: jax.Array, weight: BlockSparse, gy: jax.Array):
        def product(x: jax.Array, values: jax.Array) -> jax.Array:
            return block_matmul(x, dataclasses.replace(weight, values=values), implementation=name)

        y, pull = jax.vjp(product, x, weight.values)
        return y, *pull(gy)

    return jax.jit(run)(x, weight, gy)


def exact(case: Case, dtype: jnp.dtype, seed: int = 1) -> BlockSparse:
    """The weight of a case, float32 values that operands of the dtype hold exactly."""
    weight = make_weight(case, seed)
    return dataclasses.replace(weight, values=weight.values.astype(dtype).astype(jnp.float32))


def check(case: Case, dtype: jnp.dtype, name: str = NAME) -> None:
    """Run a case and compare all three products; a failure names the product and its error."""
    weight, (K, N) = exact(case, dtype), case.grid.shape
    x, gy = draw((case.tokens, K), 2, dtype), draw((case.tokens, N), 3, dtype)
    y, gx, gvalues = product_and_gradients(name, x, weight, gy)
    assert (y.dtype, gx.dtype, gvalues.dtype) == (dtype, dtype, jnp.float32)
    x64, gy64, dense = np.asarray(x, np.float64), np.asarray(gy, np.float64), dense_float64(weight)
    compare("y", y, x64 @ dense)
    compare("gx", gx, gy64 @ dense.T)
    compare("gvalues", gvalues, blocks_float64(x64.T @ gy64, weight))
    free = ~np.asarray(active_mask(weight.index, weight.grid))
    assert free.sum() >= case.free * weight.grid.shards
    assert not np.any(np.asarray(gvalues)[free]), "a free slot has a gradient"


def check_norms(grid: BlockGrid, tokens: int, dtype: jnp.dtype, name: str = NAME) -> None:
    """``sum |x^T gy|`` of every block of the grid."""
    x, gy = draw((tokens, grid.shape[0]), 2, dtype), draw((tokens, grid.shape[1]), 3, dtype)
    norms = jax.jit(lambda x, gy: IMPLEMENTATIONS[name].block_norms(x, gy, grid))(x, gy)
    gradient = np.abs(np.asarray(x, np.float64).T @ np.asarray(gy, np.float64))
    assert norms.dtype == jnp.float32
    compare("norms", norms, gradient.reshape(grid.rows, grid.block[0], grid.columns, grid.block[1]).sum(axis=(1, 3)))


def compare(product: str, got: jax.Array, want: np.ndarray) -> None:
    error = np.max(np.abs(np.asarray(got, np.float64) - want)) / max(np.max(np.abs(want)), 1e-30)
    assert error < TOLERANCES[product], f"{product}: error {error:.2e} of the maximum"
