"""Clipping by the global norm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.optim.clip import clip_by_global_norm

GRADIENT = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}  # global norm 5


@pytest.mark.parametrize(("largest", "factor"), [(1.0, 0.2), (4.0, 0.8), (5.0, 1.0), (10.0, 1.0)])
def test_worked_example(largest, factor):
    clipped, _ = clip_by_global_norm(largest).update(GRADIENT, optax.EmptyState())
    np.testing.assert_allclose(clipped["a"], [3 * factor, 0], rtol=1e-6)
    np.testing.assert_allclose(clipped["b"], [[4 * factor]], rtol=1e-6)


def test_agrees_with_optax():
    gradient = {"a": jax.random.normal(jax.random.key(0), (7, 3)), "b": jax.random.normal(jax.random.key(1), (5,))}
    ours, _ = clip_by_global_norm(0.5).update(gradient, optax.EmptyState())
    theirs, _ = optax.clip_by_global_norm(0.5).update(gradient, optax.EmptyState())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)


def test_no_gradient_and_no_finite_gradient():
    zero, _ = clip_by_global_norm(1.0).update({"a": jnp.zeros(3)}, optax.EmptyState())
    np.testing.assert_array_equal(zero["a"], np.zeros(3))
    broken, _ = clip_by_global_norm(1.0).update({"a": jnp.array([jnp.nan, 1.0])}, optax.EmptyState())
    assert not np.any(np.isfinite(broken["a"]))


def test_bfloat16_gradients_are_summed_in_float32():
    # 4096 ones have the norm 64; a running sum in bfloat16 stops at 256 and gives 16.
    clipped, _ = clip_by_global_norm(1.0).update({"a": jnp.ones(4096, jnp.bfloat16)}, optax.EmptyState())
    assert clipped["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(clipped["a"].astype(jnp.float32), 1 / 64, rtol=1e-2)
