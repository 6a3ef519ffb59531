import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.inference.sampling import Sampling, draw

LOGITS = jnp.log(jnp.array([0.1, 0.5, 0.15, 0.25]))


def frequencies(sampling, count=4000):
    keys = jax.random.split(jax.random.key(0), count)
    tokens = jax.vmap(lambda key: draw(LOGITS, sampling, key))(keys)
    return np.bincount(np.asarray(tokens), minlength=4) / count


def test_temperature_one_draws_the_model():
    np.testing.assert_allclose(frequencies(Sampling(1.0, 0, 0)), [0.1, 0.5, 0.15, 0.25], atol=0.03)


def test_top_k_leaves_the_k_most_likely():
    np.testing.assert_allclose(frequencies(Sampling(1.0, 2, 0)), [0, 2 / 3, 0, 1 / 3], atol=0.03)


def test_low_temperature_sharpens():
    # p ** 2, normalised.
    expected = np.array([0.1, 0.5, 0.15, 0.25]) ** 2
    np.testing.assert_allclose(frequencies(Sampling(0.5, 0, 0)), expected / expected.sum(), atol=0.03)


def test_temperature_zero_is_greedy():
    assert int(draw(LOGITS, Sampling(0.0, 0, 0), jax.random.key(0))) == 1


@pytest.mark.parametrize(("temperature", "top_k"), [(-1.0, 0), (1.0, -1)])
def test_nonsense_is_refused(temperature, top_k):
    with pytest.raises(ValueError, match="must be at least 0"):
        Sampling(temperature, top_k, 0)
