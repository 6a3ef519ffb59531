"""The scored product is the product, with the block sums of the dense gradient as the gradient of its probe."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.kernels.api import block_matmul
from sparsejax.kernels.scored_matmul import scored_matmul
from sparsejax.topology.blocks import BlockSparse
from tests.kernels.block_norms_test import norms_float64
from tests.kernels.cases import CASES, make_weight
from tests.kernels.contract_test import draw


@pytest.mark.parametrize("case", ["square", "balanced_column_shares"])
@pytest.mark.parametrize("name", ["xla", "transient"])
def test_the_product_its_gradients_and_the_scores(name, case):
    weight = make_weight(CASES[case], seed=1)
    grid = weight.grid
    x, gy = draw((2, 5, grid.shape[0]), 2), draw((2, 5, grid.shape[1]), 3)

    def scored(x: jax.Array, values: jax.Array, probe: jax.Array) -> jax.Array:
        return scored_matmul(x, BlockSparse(values, weight.index, grid), probe, implementation=name)

    def plain(x: jax.Array, values: jax.Array) -> jax.Array:
        return block_matmul(x, BlockSparse(values, weight.index, grid), implementation=name)

    @jax.jit
    def run(x: jax.Array, values: jax.Array, gy: jax.Array):
        probe = jnp.full((grid.rows, grid.columns), jnp.nan)
        (y, pull), (want, pull_plain) = jax.vjp(scored, x, values, probe), jax.vjp(plain, x, values)
        return (y, *pull(gy)), (want, *pull_plain(gy))

    with jax.default_matmul_precision("highest"):
        (*same, norms), want = run(x, weight.values, gy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), tuple(same), want)
    flat = (x.reshape(10, -1), gy.reshape(10, -1))
    assert norms.dtype == jnp.float32
    np.testing.assert_allclose(norms, norms_float64(*flat, grid), rtol=1e-5)


def test_a_probe_of_another_shape_is_an_error():
    weight = make_weight(CASES["square"], seed=1)
    with pytest.raises(ValueError, match=r"probe of shape \(6, 4\): the grid has \(4, 6\) blocks"):
        scored_matmul(jnp.zeros((2, 32)), weight, jnp.zeros((6, 4)), implementation="xla")
