"""One number a block of the gradient, active or not: against float64 numpy, and without the gradient in memory."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.kernels.block_norms import panel_norms
from sparsejax.topology.blocks import BlockGrid


def draw(shape: tuple[int, ...], seed: int, dtype: str = "float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def norms_float64(x: jax.Array, gy: jax.Array, grid: BlockGrid) -> np.ndarray:
    gradient = np.abs(np.asarray(x, np.float64).T @ np.asarray(gy, np.float64))
    return gradient.reshape(grid.rows, grid.block[0], grid.columns, grid.block[1]).sum(axis=(1, 3))


def test_worked_example():
    # Two tokens; G = [[1, -2], [3, 4], [0, 0], [-1, 0]], in blocks of 2 x 1.
    x = jnp.array([[1.0, 3.0, 0.0, -1.0], [0.0, 1.0, 0.0, -0.5]])
    gy = jnp.array([[1.0, -2.0], [0.0, 10.0]])
    np.testing.assert_allclose(panel_norms(x, gy, BlockGrid((4, 2), (2, 1))), [[4.0, 6.0], [1.0, 3.0]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "grid",
    [
        BlockGrid((12, 20), (4, 4)),  # fewer columns than panels
        BlockGrid((8, 44), (2, 4)),  # a prime number of columns
        BlockGrid((16, 96), (8, 4), 2, "columns"),  # several columns a panel
    ],
)
def test_sums_of_absolute_values_against_float64(grid, dtype):
    x, gy = draw((7, grid.shape[0]), 1, dtype), draw((7, grid.shape[1]), 2, dtype)
    with jax.default_matmul_precision("highest"):
        norms = panel_norms(x, gy, grid)
    assert norms.dtype == jnp.float32
    np.testing.assert_allclose(norms, norms_float64(x, gy, grid), rtol=1e-5)


def test_the_gradient_is_never_whole():
    grid = BlockGrid((48, 160), (8, 8))
    program = jax.jit(lambda x, gy: panel_norms(x, gy, grid)).lower(draw((5, 48), 1), draw((5, 160), 2)).compile()
    sizes = [
        int(np.prod([int(n) for n in shape.split(",")])) for shape in re.findall(r"f32\[([\d,]+)\]", program.as_text())
    ]
    assert 48 * 16 in sizes, "the search must find a panel"
    assert max(sizes) < 48 * 160 / 4
