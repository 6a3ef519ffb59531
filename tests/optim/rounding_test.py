"""Stochastic rounding to bfloat16: unbiased, exact where it can be, safe at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.optim.rounding import stochastic_round

LARGEST = 3.3895313892515355e38  # the largest finite bfloat16


def test_worked_example():
    # bfloat16 has 8 significant bits: around 1 its neighbours are 1 and 1.0078125. A quarter of the way between
    # them the upper one must come out a quarter of the time.
    x = jnp.full((20_000,), 1 + 0.0078125 / 4, jnp.float32)
    for sign in (1, -1):
        rounded = np.asarray(stochastic_round(sign * x, jax.random.key(0)), np.float32)
        assert set(np.unique(sign * rounded)) == {1.0, 1.0078125}
        assert np.mean(sign * rounded == 1.0078125) == pytest.approx(0.25, abs=0.015)  # 5 standard deviations


def test_expectation_is_the_value():
    x = jnp.asarray(np.random.default_rng(0).normal(size=64) * 10.0 ** np.arange(-32, 32), jnp.float32)
    rounded = jax.vmap(stochastic_round, in_axes=(None, 0))(x, jax.random.split(jax.random.key(1), 4000))
    mean = np.asarray(rounded, np.float64).mean(axis=0)
    # One rounding errs by at most 2^-7 of the value, a standard deviation of at most 2^-8: 6 of the mean's.
    np.testing.assert_allclose(mean, np.asarray(x, np.float64), rtol=6 * 2**-8 / np.sqrt(4000))


def test_what_bfloat16_holds_stays_exact():
    exact = jnp.array([0.0, -0.0, 1.0, -1.5, 2.0**-126, 3.0e38, LARGEST, jnp.inf, -jnp.inf], jnp.bfloat16)
    for seed in range(20):
        rounded = stochastic_round(exact.astype(jnp.float32), jax.random.key(seed))
        np.testing.assert_array_equal(np.asarray(rounded, np.float32), np.asarray(exact, np.float32))


def test_finite_stays_finite_and_nan_stays_nan():
    beyond = np.nextafter(np.float32(np.inf), np.float32(0))  # the largest float32
    x = jnp.array([beyond, -beyond, np.nan], jnp.float32)
    all_ones = jax.lax.bitcast_convert_type(jnp.array([0x7FFFFFFF, 0xFFFFFFFF], jnp.uint32), jnp.float32)
    for seed in range(20):
        rounded = np.asarray(stochastic_round(x, jax.random.key(seed)), np.float32)
        np.testing.assert_array_equal(rounded, np.array([LARGEST, -LARGEST, np.nan], np.float32))
        assert np.all(np.isnan(np.asarray(stochastic_round(all_ones, jax.random.key(seed)), np.float32)))


def test_equal_keys_round_equally():
    x = jax.random.normal(jax.random.key(0), (1000,))
    first, again, other = (np.asarray(stochastic_round(x, jax.random.key(k)), np.float32) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"^stochastic_round takes float32, not bfloat16$"):
        stochastic_round(jnp.zeros(3, jnp.bfloat16), jax.random.key(0))
