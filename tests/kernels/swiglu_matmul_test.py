"""SwiGLU over sparse weights, apart and as one product: against dense matrices, and what is kept between the passes."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from sparsejax.hardware.chips import chip_named
from sparsejax.hardware.topologies import described_device, on_device
from sparsejax.kernels import api
from sparsejax.kernels.swiglu_matmul import swiglu_matmul
from sparsejax.kernels.xla import XLA
from sparsejax.topology.blocks import BlockGrid, BlockSparse
from tests.kernels.cases import Case, dense_float64, make_weight, scattered
from tests.kernels.contract_test import draw, relative_error
from tests.kernels.swiglu_test import definition

GRID = BlockGrid((32, 48), (8, 8))


def pair(grid: BlockGrid = GRID) -> list[BlockSparse]:
    return [make_weight(Case(grid, scattered, 1, 1), seed=seed) for seed in (1, 2)]


@pytest.fixture(autouse=True)
def joint(monkeypatch: pytest.MonkeyPatch) -> None:
    """An implementation that makes one product of gate and up; its name is ``joint``."""
    monkeypatch.setitem(api.IMPLEMENTATIONS, "joint", dataclasses.replace(XLA, groups=lambda *_: True))


def gated(name: str, gate: BlockSparse, up: BlockSparse):
    def product(x: jax.Array, values: tuple[jax.Array, jax.Array]) -> jax.Array:
        weights = [dataclasses.replace(w, values=v) for w, v in zip((gate, up), values, strict=True)]
        return swiglu_matmul(x, *weights, implementation=name, checkpoint_as="products")

    return product


def assert_equals_dense(name: str, grid: BlockGrid, tokens: int) -> None:
    gate, up = pair(grid)
    x, gh = draw((2, tokens, grid.shape[0]), 3), draw((2, tokens, grid.shape[1]), 4)

    def dense(x: jax.Array, kernels: tuple[jax.Array, jax.Array]) -> jax.Array:
        return definition(x @ kernels[0], x @ kernels[1])

    def run(function, x, weights):
        y, pull = jax.vjp(function, x, weights)
        return y, *pull(gh)

    kernels = tuple(jnp.asarray(dense_float64(weight), jnp.float32) for weight in (gate, up))
    with jax.default_matmul_precision("highest"):
        y, gx, gvalues = jax.jit(lambda x, v: run(gated(name, gate, up), x, v))(x, (gate.values, up.values))
        want, want_gx, want_gkernels = jax.jit(lambda x, k: run(dense, x, k))(x, kernels)
    assert relative_error(y, np.asarray(want, np.float64)) < 1e-5
    assert relative_error(gx, np.asarray(want_gx, np.float64)) < 1e-5
    for weight, gradient, expected in zip((gate, up), gvalues, want_gkernels, strict=True):
        active = dense_float64(dataclasses.replace(weight, values=jnp.ones_like(weight.values)))
        got = dense_float64(dataclasses.replace(weight, values=gradient))
        assert relative_error(got, np.asarray(expected, np.float64) * active) < 1e-5


@pytest.mark.parametrize(("name", "shards"), [("xla", 1), ("joint", 2)])
def test_product_and_gradients_against_dense_matrices(name, shards):
    assert_equals_dense(name, dataclasses.replace(GRID, shards=shards), tokens=3)


@pytest.mark.parametrize("shards", [1, 2])
def test_product_and_gradients_on_a_simulated_tpu(shards):
    strict = pltpu.InterpretParams(out_of_bounds_reads="raise", uninitialized_memory="nan")
    with pltpu.force_tpu_interpret_mode(strict):
        assert_equals_dense("pallas_tpu@v5e", BlockGrid((256, 512), (128, 128), shards), tokens=3)


@pytest.mark.tpu
@pytest.mark.parametrize(("chip", "side"), [("v5e", 128), ("v6e", 256)])
def test_product_and_gradients_compile_as_kernels_of_both_weights(chip, side):
    grid = BlockGrid((512, 1024), (side, side))
    weights = [make_weight(Case(grid, scattered, 0, 1), seed=seed) for seed in (1, 2)]
    arguments = (jnp.zeros((1000, 512), jnp.bfloat16), tuple(weight.values for weight in weights))

    def loss(x: jax.Array, values: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.sum(gated(f"pallas_tpu@{chip}", *weights)(x, values).astype(jnp.float32))

    lowered = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*on_device(arguments, described_device(chip_named(chip))))
    assert sorted(re.findall(r'kernel_name = "(\w+)"', lowered.as_text())) == [
        "block_matmul_forward",
        "block_matmul_input_gradient",
        "block_matmul_value_gradient",
        "block_matmul_value_gradient",
        "swiglu_gradient",
    ]
    lowered.compile()


@pytest.mark.parametrize(("name", "kept"), [("xla", [(5, 48)] * 2), ("joint", [(5, 96)])])
def test_the_input_the_values_and_the_products_are_kept(name, kept):
    gate, up = pair()
    _, pull = jax.vjp(lambda x: gated(name, gate, up)(x, (gate.values, up.values)), draw((5, 32), 1))
    floating = {leaf.shape for leaf in jax.tree.leaves(pull) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floating == {(5, 32), gate.values.shape, *kept}
    assert [leaf.shape for leaf in jax.tree.leaves(pull) if leaf.shape in kept] == kept


@pytest.mark.parametrize(("name", "shape", "count"), [("xla", (5, 48), 2), ("joint", (5, 96), 1)])
def test_a_checkpoint_policy_can_keep_the_products_by_name(name, shape, count):
    gate, up = pair()

    def saved(names: tuple[str, ...]) -> int:
        policy = jax.checkpoint_policies.save_only_these_names(*names)
        layer = jax.checkpoint(lambda x: jnp.sum(gated(name, gate, up)(x, (gate.values, up.values))), policy=policy)
        return sum(leaf.shape == shape for leaf in jax.tree.leaves(jax.vjp(layer, draw((5, 32), 1))[1]))

    assert (saved(("products",)), saved(("others",))) == (count, 0)


def test_grids_that_differ_are_an_error():
    gate, _ = pair()
    other = make_weight(Case(dataclasses.replace(GRID, shape=(32, 40)), scattered, 0, 1), seed=0)
    with pytest.raises(ValueError, match="must be the same"):
        swiglu_matmul(jnp.zeros((2, 32)), gate, other, implementation="xla", checkpoint_as="products")
