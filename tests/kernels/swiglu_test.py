"""The activation of SwiGLU: worked values, and gradients against differentiating the definition."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.kernels.swiglu import swiglu
from tests.kernels.contract_test import draw


def definition(gate: jax.Array, up: jax.Array) -> jax.Array:
    return gate / (1 + jnp.exp(-gate)) * up


def test_worked_example():
    np.testing.assert_allclose(swiglu(jnp.array([2.0]), jnp.array([3.0])), [6.0 / (1 + math.exp(-2.0))], rtol=1e-6)


def test_gradients_are_those_of_the_definition():
    arguments = (draw((3, 5), 1) * 3, draw((3, 5), 2))
    y, pull = jax.vjp(swiglu, *arguments)
    want, pull_want = jax.vjp(definition, *arguments)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    for got, expected in zip(pull(draw((3, 5), 3)), pull_want(draw((3, 5), 3)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_only_gate_and_up_are_kept():
    _, pull = jax.vjp(swiglu, draw((3, 5), 1), draw((3, 5), 2))
    assert [leaf.shape for leaf in jax.tree.leaves(pull)] == [(3, 5), (3, 5)]


def test_bfloat16_is_rounded_once():
    gate, up = draw((64,), 1, jnp.bfloat16), draw((64,), 2, jnp.bfloat16)
    exact = definition(gate.astype(jnp.float32), up.astype(jnp.float32))
    np.testing.assert_array_equal(swiglu(gate, up), exact.astype(jnp.bfloat16))
