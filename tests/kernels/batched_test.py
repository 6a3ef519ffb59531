"""``batched`` with very few tokens: sums in pairs instead of small matrix products, and the same numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.kernels.api import block_matmul
from sparsejax.topology.blocks import BlockGrid, BlockSparse
from tests.kernels.cases import Case, dense_float64, full, make_weight

# Blocks of 6 rows are halved into 3 and 3, and those into 1 and 2.
CASE = Case(BlockGrid((48, 32), (6, 8)), full, free=2, tokens=1)


def product(x_TK: jax.Array, weight: BlockSparse) -> jax.Array:
    return block_matmul(x_TK, weight, implementation="batched")


@pytest.mark.parametrize(("tokens", "small_products"), [(1, False), (4, False), (5, True)])
def test_few_tokens_are_added_up_in_pairs(tokens, small_products):
    weight = make_weight(CASE, seed=1)
    x = jnp.asarray(np.random.default_rng(tokens).standard_normal((tokens, 48)), jnp.float32)
    program = jax.jit(product).lower(x, weight)
    assert ("stablehlo.dot_general" in program.as_text()) == small_products
    want = np.asarray(x, np.float64) @ dense_float64(weight)
    np.testing.assert_allclose(program.compile()(x, weight), want, atol=1e-5 * np.abs(want).max())


def test_bfloat16_is_summed_in_float32():
    # Partial sums in bfloat16 would stay at 1: it has nothing between 1 and 1 + 2^-7.
    grid = BlockGrid((6, 8), (6, 8))
    weight = make_weight(Case(grid, full, free=0, tokens=1), seed=1)
    values = jnp.ones((1, 6, 8), jnp.bfloat16)
    x = jnp.asarray([[1.0, *[2.0**-9] * 4, 0.0]], jnp.bfloat16)
    got = product(x, BlockSparse(values, weight.index, grid))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(got, np.float32), np.full((1, 8), 1 + 2.0**-7, np.float32))
