"""SwiGLU: worked values, gradients against differentiating the definition, and what is kept between the passes."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.kernels import api
from sparsejax.kernels.swiglu import swiglu, swiglu_matmul
from sparsejax.kernels.xla import XLA
from sparsejax.topology.blocks import BlockGrid, BlockSparse
from tests.kernels.cases import Case, dense_float64, make_weight, scattered
from tests.kernels.contract_test import draw, relative_error

GRID = BlockGrid((32, 48), (8, 8))


def definition(gate: jax.Array, up: jax.Array) -> jax.Array:
    return gate / (1 + jnp.exp(-gate)) * up


def pair() -> list[BlockSparse]:
    return [make_weight(Case(GRID, scattered, 1, 1), seed=seed) for seed in (1, 2)]


def test_worked_example():
    np.testing.assert_allclose(swiglu(jnp.array([2.0]), jnp.array([3.0])), [6.0 / (1 + math.exp(-2.0))], rtol=1e-6)


def test_gradients_are_those_of_the_definition():
    arguments = (draw((3, 5), 1) * 3, draw((3, 5), 2))
    y, pull = jax.vjp(swiglu, *arguments)
    want, pull_want = jax.vjp(definition, *arguments)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    for got, expected in zip(pull(draw((3, 5), 3)), pull_want(draw((3, 5), 3)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_rounded_once():
    gate, up = draw((64,), 1, jnp.bfloat16), draw((64,), 2, jnp.bfloat16)
    exact = definition(gate.astype(jnp.float32), up.astype(jnp.float32))
    np.testing.assert_array_equal(swiglu(gate, up), exact.astype(jnp.bfloat16))


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An implementation named ``fused`` with a kernel of its own; the list grows when that is called."""
    calls: list[str] = []

    def kernel(x: jax.Array, gate: BlockSparse, up: BlockSparse) -> jax.Array:
        calls.append("kernel")
        return swiglu(XLA.forward(x, gate).astype(x.dtype), XLA.forward(x, up).astype(x.dtype))

    monkeypatch.setitem(api.IMPLEMENTATIONS, "fused", dataclasses.replace(XLA, swiglu=kernel))
    return calls


@pytest.mark.parametrize("name", ["xla", "fused"])
def test_product_and_gradients_against_the_dense_definition(kernel_calls, name):
    gate, up = pair()
    x, gh = draw((2, 3, 32), 3), draw((2, 3, 48), 4)

    def sparse(x: jax.Array, values: tuple[jax.Array, jax.Array]) -> jax.Array:
        weights = [dataclasses.replace(w, values=v) for w, v in zip((gate, up), values, strict=True)]
        return swiglu_matmul(x, *weights, implementation=name, checkpoint_as="products")

    def dense(x: jax.Array, kernels: tuple[jax.Array, jax.Array]) -> jax.Array:
        return definition(x @ kernels[0], x @ kernels[1])

    def run(function, x, weights):
        y, pull = jax.vjp(function, x, weights)
        return y, *pull(gh)

    kernels = tuple(jnp.asarray(dense_float64(weight), jnp.float32) for weight in (gate, up))
    with jax.default_matmul_precision("highest"):
        y, gx, gvalues = jax.jit(lambda x, v: run(sparse, x, v))(x, (gate.values, up.values))
        want, want_gx, want_gkernels = jax.jit(lambda x, k: run(dense, x, k))(x, kernels)
        plain = jax.jit(sparse)(x, (gate.values, up.values))
    for got, expected in ((y, want), (plain, want), (gx, want_gx)):
        assert relative_error(got, np.asarray(expected, np.float64)) < 1e-5
    for weight, gradient, expected in zip((gate, up), gvalues, want_gkernels, strict=True):
        active = dense_float64(dataclasses.replace(weight, values=jnp.ones_like(weight.values)))
        got = dense_float64(dataclasses.replace(weight, values=gradient))
        assert relative_error(got, np.asarray(expected, np.float64) * active) < 1e-5
    # Only what is not differentiated goes through the kernel that keeps neither product.
    assert kernel_calls == (["kernel"] if name == "fused" else [])


@pytest.mark.parametrize("name", ["xla", "fused"])
def test_residuals_are_the_input_the_values_and_both_products(kernel_calls, name):
    gate, up = pair()
    _, pull = jax.vjp(
        lambda x: swiglu_matmul(x, gate, up, implementation=name, checkpoint_as="products"), draw((5, 32), 1)
    )
    floating = [leaf.shape for leaf in jax.tree.leaves(pull) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    slots = gate.values.shape[0]
    assert sorted(set(floating)) == [(5, 32), (5, 48), (slots, 8, 8)] and floating.count((5, 48)) == 2


@pytest.mark.parametrize("name", ["xla", "fused"])
def test_a_checkpoint_policy_can_keep_the_products_by_name(kernel_calls, name):
    gate, up = pair()

    def saved(names: tuple[str, ...]) -> int:
        policy = jax.checkpoint_policies.save_only_these_names(*names)
        layer = jax.checkpoint(
            lambda x: jnp.sum(swiglu_matmul(x, gate, up, implementation=name, checkpoint_as="products")), policy=policy
        )
        leaves = jax.tree.leaves(jax.vjp(layer, draw((5, 32), 1))[1])
        return sum(leaf.shape == (5, 48) for leaf in leaves)

    assert (saved(("products",)), saved(("others",))) == (2, 0)


def test_grids_that_differ_are_an_error():
    gate, _ = pair()
    other = make_weight(Case(dataclasses.replace(GRID, shape=(32, 40)), scattered, 0, 1), seed=0)
    with pytest.raises(ValueError, match="must be the same"):
        swiglu_matmul(jnp.zeros((2, 32)), gate, other, implementation="xla", checkpoint_as="products")
