"""Means over documents: hand-computed errors, and intervals that cover."""

import math

import numpy as np
import pytest

from sparsejax.training.clusters import Mean, ratio


def test_three_documents_by_hand():
    # 6 nats on 2 tokens, 4 on 4, 2 on 2: 12 nats on 8 tokens. Deviations from 1.5 a token: 3, -2, -1.
    found = ratio(np.array([6.0, 4.0, 2.0]), np.array([2.0, 4.0, 2.0]))
    assert found == Mean(1.5, math.sqrt(3 / 2 * (9 + 4 + 1)) / 8, 3)
    # Student's t for 95 % at 2 degrees of freedom is 4.3027.
    assert found.half_width(0.95) == pytest.approx(4.302653 * found.error)
    low, high = found.interval(0.95)
    assert (low + high) / 2 == pytest.approx(1.5) and high - low == pytest.approx(2 * found.half_width(0.95))


def test_documents_of_one_length_have_the_error_of_a_plain_mean():
    y = np.random.default_rng(0).normal(size=50)
    found = ratio(y, np.ones(50))
    assert found.value == pytest.approx(y.mean())
    assert found.error == pytest.approx(y.std(ddof=1) / math.sqrt(50))


def test_too_few_documents_have_no_error():
    assert ratio(np.array([3.0, 5.0]), np.array([2.0, 0.0])).value == 1.5
    one = ratio(np.array([3.0, 5.0]), np.array([2.0, 0.0]))
    assert math.isnan(one.error) and math.isnan(one.half_width(0.9)) and one.documents == 1
    none = ratio(np.zeros(2), np.zeros(2))
    assert math.isnan(none.value) and none.documents == 0


@pytest.mark.slow
@pytest.mark.parametrize("documents", [30, 300])
def test_intervals_cover(documents):
    """Documents with losses and lengths of their own that hang together: 95 % intervals hold the truth 93 to 97 %."""
    rng = np.random.default_rng(documents)

    def sample(count):
        difficulty = rng.normal(3.0, 0.5, count)
        length = np.ceil(rng.lognormal(4.0, 0.7, count) * np.exp(0.2 * (difficulty - 3.0)))
        return difficulty * length + rng.normal(size=count) * np.sqrt(length), length

    y, x = sample(2_000_000)
    truth, held, narrow, trials = y.sum() / x.sum(), 0, 0, 2000
    for _ in range(trials):
        y, x = sample(documents)
        found = ratio(y, x)
        low, high = found.interval(0.95)
        held += low <= truth <= high
        # What counting tokens would say: the same variance, over the number of tokens.
        narrow += abs(found.value - truth) <= 1.96 * math.sqrt((0.25 + 1.0) / x.sum())
    assert 0.91 <= held / trials <= 0.97
    assert narrow / trials < 0.4
