"""Several weights as one product: equal to one product each, in one call of the implementation."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from sparsejax.hardware.chips import chip_named
from sparsejax.kernels import api
from sparsejax.kernels.group import block_matmul_group
from sparsejax.kernels.implementation import Implementation
from sparsejax.kernels.tpu_tiles import line_tiles
from sparsejax.kernels.xla import XLA
from sparsejax.topology.blocks import BlockGrid, BlockSparse
from tests.kernels.cases import Case, balanced, dense_float64, make_weight, scattered
from tests.kernels.contract_test import draw, relative_error

GRID = BlockGrid((32, 48), (8, 8))
WIDTHS = (48, 32, 48)


def weights_of(grid: BlockGrid, free: int) -> list[BlockSparse]:
    grids = [dataclasses.replace(grid, shape=(grid.shape[0], width)) for width in WIDTHS]
    mask = balanced(5) if grid.balance == "column" else scattered
    return [make_weight(Case(g, mask, free * i, 1), seed=i) for i, g in enumerate(grids)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[BlockGrid]:
    """The grids that an implementation which gains by groups is called with, in order; its name is ``grouped``."""
    seen: list[BlockGrid] = []

    def forward(x: jax.Array, weight: BlockSparse) -> jax.Array:
        seen.append(weight.grid)
        return XLA.forward(x, weight)

    def groups(grid: BlockGrid, slots: int, tokens: int, dtype: object) -> bool:
        return grid.shape[1] <= sum(WIDTHS)

    grouped = Implementation(forward, XLA.backward, XLA.unsupported, groups=groups)
    monkeypatch.setitem(api.IMPLEMENTATIONS, "grouped", grouped)
    return seen


def outputs_and_gradients(name: str, x: jax.Array, weights: list[BlockSparse], gys: list[jax.Array]):
    def products(x: jax.Array, values: list[jax.Array]):
        replaced = [dataclasses.replace(w, values=v) for w, v in zip(weights, values, strict=True)]
        return block_matmul_group(x, replaced, implementation=name)

    def run(x: jax.Array, values: list[jax.Array], gys: list[jax.Array]):
        outputs, pull = jax.vjp(products, x, values)
        return outputs, *pull(tuple(gys))

    with jax.default_matmul_precision("highest"):
        return jax.jit(run)(x, [w.values for w in weights], gys)


@pytest.mark.parametrize(
    ("grid", "free"),
    [
        (dataclasses.replace(GRID, shards=2), 2),
        (dataclasses.replace(GRID, balance="column"), 0),
    ],
    ids=["shares_and_free_slots", "balanced"],
)
def test_one_product_equals_one_each(calls, grid, free):
    weights = weights_of(grid, free)
    x = draw((2, 3, 32), 1)
    gys = [draw((2, 3, weight.grid.shape[1]), 2 + i) for i, weight in enumerate(weights)]
    outputs, gx, gvalues = outputs_and_gradients("grouped", x, weights, gys)
    assert calls == [dataclasses.replace(grid, shape=(32, sum(WIDTHS)), balance="none")]
    want = outputs_and_gradients("transient", x, weights, gys)
    for got, expected in zip(jax.tree.leaves((outputs, gx, gvalues)), jax.tree.leaves(want), strict=True):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        assert relative_error(got, np.asarray(expected, np.float64)) < 1e-5
    for weight, y in zip(weights, outputs, strict=True):
        assert relative_error(y, np.asarray(x, np.float64) @ dense_float64(weight)) < 1e-5
    for weight, gradient in zip(weights, gvalues, strict=True):
        free_slots = np.asarray(weight.cols) >= weight.grid.columns
        assert not np.any(np.asarray(gradient)[free_slots]), "a free slot has a gradient"


def test_one_product_on_a_simulated_tpu():
    grids = [BlockGrid((384, width), (128, 128), 2) for width in (512, 768)]
    weights = [make_weight(Case(g, scattered, i, 1), seed=i) for i, g in enumerate(grids)]
    x, gys = draw((6, 384), 1), [draw((6, g.shape[1]), 2 + i) for i, g in enumerate(grids)]
    strict = pltpu.InterpretParams(out_of_bounds_reads="raise", uninitialized_memory="nan")
    with pltpu.force_tpu_interpret_mode(strict):
        outputs, gx, gvalues = outputs_and_gradients("pallas_tpu@v5e", x, weights, gys)
    want = outputs_and_gradients("transient", x, weights, gys)
    for got, expected in zip(jax.tree.leaves((outputs, gx, gvalues)), jax.tree.leaves(want), strict=True):
        assert relative_error(got, np.asarray(expected, np.float64)) < 1e-5


def test_the_gradient_of_the_input_is_rounded_once(calls):
    # Three gradients of 1, 2^-8 and 2^-8: rounded one by one to bfloat16 they stay at 1.
    grid = BlockGrid((8, 8), (8, 8))
    ones = [make_weight(Case(grid, lambda grid, rng: np.ones((1, 1), bool), 0, 1), seed=0) for _ in range(3)]
    eye = [dataclasses.replace(weight, values=jnp.eye(8)[None]) for weight in ones]
    gys = [jnp.full((1, 8), g, jnp.bfloat16) for g in (1.0, 2**-8, 2**-8)]
    _, gx, gvalues = outputs_and_gradients("grouped", jnp.ones((1, 8), jnp.bfloat16), eye, gys)
    assert gx.dtype == jnp.bfloat16 and gvalues[0].dtype == jnp.float32
    np.testing.assert_array_equal(gx.astype(jnp.float32), 1 + 2**-7)


def test_a_whole_that_is_no_gain_is_one_product_each(calls):
    weights = [make_weight(Case(GRID, scattered, 0, 1), seed=i) for i in range(3)]
    block_matmul_group(draw((2, 32), 1), weights, implementation="grouped")
    assert calls == [GRID] * 3


@pytest.mark.parametrize("name", ["reference", "xla"])
def test_other_implementations_make_one_product_a_weight(name):
    weights = weights_of(GRID, 1)
    outputs = jax.jit(lambda x: block_matmul_group(x, weights, implementation=name))(draw((3, 32), 1))
    for weight, y in zip(weights, outputs, strict=True):
        assert relative_error(y, np.asarray(draw((3, 32), 1), np.float64) @ dense_float64(weight)) < 1e-5


def test_weights_that_differ_are_refused_in_one_line():
    one = make_weight(Case(GRID, scattered, 0, 1), seed=0)
    for change in ({"block": (8, 16)}, {"shape": (48, 48)}):
        other = make_weight(Case(dataclasses.replace(GRID, **change), scattered, 0, 1), seed=0)
        with pytest.raises(ValueError, match="weights side by side must have the same") as caught:
            block_matmul_group(jnp.zeros((2, 32)), [one, other], implementation="xla")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("chip", "width", "joined"), [("v5e", 2 * 11264, True), ("v5p", 2 * 11264, False)])
def test_a_tpu_joins_weights_where_its_panels_stay_long(chip, width, joined):
    # Gate and up of a 7b model fit into one product on both; on the smaller VMEM only beside panels of 128 tokens.
    grid = BlockGrid((4096, width), (128, 128))
    slots = grid.cells // 4
    assert line_tiles(chip_named(chip), grid, slots, 8192, jnp.bfloat16, by_row=True).tokens >= 128
    assert api.IMPLEMENTATIONS[f"pallas_tpu@{chip}"].groups(grid, slots, 8192, jnp.bfloat16) == joined
