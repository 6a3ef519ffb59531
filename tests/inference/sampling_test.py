import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.inference.sampling import Sampling, draw, draw_rows

PROBABILITIES = np.array([0.1, 0.5, 0.15, 0.25])
LOGITS = jnp.log(jnp.asarray(PROBABILITIES))


def frequencies(sampling, count=4000):
    keys = jax.random.split(jax.random.key(0), count)
    tokens = jax.vmap(lambda key: draw(LOGITS, sampling, key))(keys)
    return np.bincount(np.asarray(tokens), minlength=4) / count


@pytest.mark.parametrize(
    ("sampling", "left"),
    [
        (Sampling(1.0), [1, 1, 1, 1]),
        (Sampling(1.0, top_k=2), [0, 1, 0, 1]),
        (Sampling(1.0, top_p=0.5), [0, 1, 0, 0]),  # 0.5 is reached by the first alone
        (Sampling(1.0, top_p=0.51), [0, 1, 0, 1]),
        (Sampling(1.0, top_p=0.9), [0, 1, 1, 1]),
        (Sampling(1.0, top_p=1e-6), [0, 1, 0, 0]),  # the likeliest always is
        (Sampling(1.0, top_k=3, top_p=0.8), [0, 1, 0, 1]),  # of 0.5, 0.25, 0.15 renormalised: 0.56, 0.28, 0.17
        (Sampling(1.0, top_k=9), [1, 1, 1, 1]),
    ],
)
def test_what_is_left_keeps_its_proportions(sampling, left):
    expected = PROBABILITIES * left / np.sum(PROBABILITIES * left)
    np.testing.assert_allclose(frequencies(sampling), expected, atol=0.03)


def test_low_temperature_sharpens():
    # p ** 2, normalised.
    expected = PROBABILITIES**2
    np.testing.assert_allclose(frequencies(Sampling(0.5)), expected / expected.sum(), atol=0.03)


def test_temperature_comes_before_the_nucleus():
    # p ** 2 of the two likeliest is 0.25 and 0.0625 of 0.345: 0.72 and 0.18.
    assert frequencies(Sampling(0.5, top_p=0.7))[1] == 1.0


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-45, 1e-38, 9e-7])
def test_temperature_zero_or_next_to_it_is_greedy(temperature):
    for how in (Sampling(temperature), Sampling(temperature, top_k=2, top_p=0.5)):
        assert int(draw(1e4 * LOGITS, how, jax.random.key(0))) == 1


def test_a_row_draws_by_its_seed_and_the_number_of_the_token():
    logits = jnp.zeros((3, 1000))
    first = draw_rows(logits, Sampling(1.0), jnp.array([1, 2, 1], jnp.uint32), 0)
    assert first[0] == first[2] != first[1]
    assert draw_rows(logits, Sampling(1.0), jnp.array([1, 2, 1], jnp.uint32), 1)[0] != first[0]
    alone = draw(logits[0], Sampling(1.0), jax.random.fold_in(jax.random.key(2), 0))
    assert first[1] == alone


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0: must be a number of at least 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_k": -1}, "top_k=-1: must be at least 0"),
        ({"top_p": 0.0}, r"top_p=0.0: must be in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_nonsense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**fields)
