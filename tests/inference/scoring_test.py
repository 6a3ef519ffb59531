"""Scores are those of the decoder on each row by itself, whatever the batch, the filling up and the devices."""

import jax
import numpy as np
import pytest

from sparsejax.inference import scoring
from sparsejax.inference.scoring import Score, Scored, score
from tests.inference.tiny_engine import tiny

RNG = np.random.default_rng(1)


def row(inputs, targets):
    return Scored(RNG.integers(0, 32, inputs).tolist(), RNG.integers(0, 32, targets).tolist())


ROWS = [row(*sizes) for sizes in ((5, 2), (1, 1), (23, 23), (17, 3), (24, 1), (6, 0), (9, 4))]


@pytest.fixture(scope="module")
def decoder():
    return tiny()


def direct(decoder, row):
    """Summed in float64 from the logits of the row alone."""
    padded = np.zeros((1, 24), np.int32)
    padded[0, : len(row.inputs)] = row.inputs
    logits = np.asarray(decoder.logits(padded)[0, len(row.inputs) - len(row.targets) : len(row.inputs)], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    greedy = logits.argmax(-1) == row.targets
    return log_p[np.arange(len(row.targets)), row.targets].sum(), bool(greedy.all())


def test_scores_are_the_direct_ones(decoder):
    likeliest = np.asarray(decoder.logits(np.zeros((1, 24), np.int32)))[0, :2].argmax(-1).tolist()
    rows = [*ROWS, Scored([0, 0], likeliest)]
    for found, each in zip(score(decoder.engine(), rows, length=24, batch_size=3), rows, strict=True):
        expected, greedy = direct(decoder, each)
        np.testing.assert_allclose(found.log_likelihood, expected, atol=1e-4)
        assert found.greedy == greedy
    assert greedy and score(decoder.engine(), ROWS[5:6], length=24, batch_size=3) == [Score(0.0, True)]


def test_batches_padding_chunks_and_devices_change_nothing(decoder, monkeypatch):
    expected = [each.log_likelihood for each in score(decoder.engine(), ROWS, length=24, batch_size=3)]

    def agrees(**changes):
        arguments = {"length": 24, "batch_size": 3} | changes
        engine = arguments.pop("engine", decoder.engine())
        found = [each.log_likelihood for each in score(engine, ROWS, **arguments)]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    agrees(batch_size=1)
    agrees(length=64, batch_size=8)
    agrees(engine=decoder.engine(2))
    scoring._score_program.cache_clear()
    # Five positions of three rows at a time: chunks that do not divide the targets, which are 16 or 24.
    monkeypatch.setattr(scoring, "_MOST_LOGITS", 3 * 32 * 5)
    agrees(batch_size=3)
    scoring._score_program.cache_clear()


def test_a_bucket_is_one_program(decoder):
    engine = decoder.engine()
    scoring._score_program.cache_clear()
    rows = [row(n, 1 + n % 3) for n in range(3, 40)]
    with jax.log_compiles(False):
        score(engine, rows, length=64, batch_size=4)
    (graphdef,) = engine._graphdefs.values()
    # Inputs of 16, 32 and 64; targets of 16 for each.
    assert scoring._score_program(graphdef, None, engine.absent)._cache_size() == 3


def test_rows_that_cannot_be_scored_are_refused(decoder):
    with pytest.raises(ValueError, match="2 targets of 1 inputs"):
        Scored([1], [2, 3])
    with pytest.raises(ValueError, match="25 inputs"):
        score(decoder.engine(), [row(25, 1)], length=24, batch_size=1)
