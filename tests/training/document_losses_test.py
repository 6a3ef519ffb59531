"""Sums by document: worked examples with a model whose losses are known, and paired differences."""

import dataclasses
import math

import numpy as np
import pytest

from sparsejax.data.tokenizer import ByteTokenizer
from sparsejax.training.document_losses import measure_text, paired
from sparsejax.training.eval_text import tokenised
from sparsejax.training.token_losses import TokenLosses

TEXTS = ["abcde", "f", "ghij"]  # 6, 2 and 5 tokens with their ends


def step(target_BL):
    """A model to whom position p costs p + 1 nats, and token 256 ten more; NaN where there is no target."""
    nll = 1.0 + np.broadcast_to(np.arange(target_BL.shape[1]), target_BL.shape) + 10.0 * (target_BL == 256)
    nll = np.where(target_BL < 0, np.nan, nll)
    return TokenLosses(nll, np.where(target_BL < 0, np.nan, 0.95), target_BL == 256)


def measured(context="rows", batch_size=2, model=step, max_tokens=0, texts=TEXTS, frequency_V=None):
    text = tokenised("t", texts, ByteTokenizer(), max_tokens)
    return measure_text(model, text, length=4, batch_size=batch_size, context=context, frequency_V=frequency_V)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_document_that_straddles_rows(batch_size):
    # Rows: abcd | e end f end | ghij | end. Costs 1 2 3 4 | 1 12 3 14 | 1 2 3 4 | 11.
    found = measured(batch_size=batch_size)
    assert found.nll.tolist() == [10 + 13, 17, 10 + 11] and found.tokens.tolist() == [6, 2, 5]
    assert found.loss.value == pytest.approx(61 / 13) and found.loss.documents == 3
    assert found.bits_per_byte.value == pytest.approx(61 / math.log(2) / 10)
    assert found.perplexity == pytest.approx(math.exp(61 / 13))
    np.testing.assert_allclose(found.position_loss, [(1 + 1 + 1 + 11) / 4, (2 + 12 + 2) / 3, 3.0, (4 + 14 + 4) / 3])
    assert [(one.label, one.tokens) for one in found.positions] == [("0", 4), ("1", 3), ("2 to 3", 6)]
    assert found.positions[2].loss.value == pytest.approx((3 * 3 + 22) / 6)


def test_documents_by_themselves():
    # Windows: abcd | e end | f end | ghij | end. Costs 1 2 3 4 | 1 12 | 1 12 | 1 2 3 4 | 11.
    found = measured(context="documents", batch_size=2)
    assert found.nll.tolist() == [10 + 13, 13, 10 + 11] and found.tokens.tolist() == [6, 2, 5]


def test_frequency_and_calibration():
    frequency_V = np.full(257, 3)
    frequency_V[256] = 6
    found = measured(frequency_V=frequency_V)
    assert [(one.label, one.tokens) for one in found.frequencies] == [("10 to 100", 10), ("10,000 and more", 3)]
    assert found.frequencies[1].loss.value == pytest.approx((12 + 14 + 11) / 3)
    # Confidence 0.95 always, right at the three ends of 13 tokens.
    assert found.calibration.error == pytest.approx(0.95 - 3 / 13)
    assert found.calibration.tokens[-1] == 13 and found.calibration.overall == pytest.approx(3 / 13)
    assert measured().frequencies == []


def test_a_limit_counts_no_token_behind_it():
    found = measured(max_tokens=7)
    assert found.nll.tolist() == [23, 3] and found.tokens.tolist() == [6, 1]
    assert found.complete.tolist() == [True, False]


def dearer(target_BL):
    found = step(target_BL)
    return TokenLosses(found.nll + np.where(target_BL == ord("f"), -3.0, 0.5), found.confidence, found.correct)


def test_paired_differences_by_hand():
    found = paired("a", measured(), "b", measured(model=dearer), same_tokenizer=True)
    # The first document is 6 x 0.5 dearer, the second 0.5 - 3, the third 5 x 0.5.
    delta, tokens = np.array([3.0, -2.5, 2.5]), np.array([6.0, 2.0, 5.0])
    mean = delta.sum() / tokens.sum()
    assert found.difference.value == pytest.approx(mean)
    assert found.difference.error == pytest.approx(math.sqrt(1.5 * np.sum((delta - mean * tokens) ** 2)) / 13)
    assert (found.unit, found.first, found.other) == ("nats/token", "a", "b")
    assert found.better == pytest.approx(1 / 3)
    back = paired("b", measured(model=dearer), "a", measured(), same_tokenizer=True)
    assert back.difference.value == pytest.approx(-mean)
    # What is hard for both cancels: the error of the difference is far below that of either mean.
    assert found.difference.error < 0.5 * measured().loss.error


def test_other_tokenizers_are_compared_by_bytes_on_documents_both_saw_whole():
    one, two = measured(max_tokens=9), measured(model=dearer)
    found = paired("a", one, "b", two, same_tokenizer=False)
    assert found.unit == "bits/byte" and found.difference.documents == 2
    assert found.difference.value == pytest.approx((3.0 - 2.5) / math.log(2) / 6)


def test_losses_that_are_not_numbers_stay_what_they_are():
    def broken(target_BL):
        found = step(target_BL)
        return TokenLosses(found.nll * np.nan, found.confidence * np.nan, found.correct)

    one, two = measured(), measured(model=broken)
    assert math.isnan(two.perplexity) and math.isnan(two.calibration.error)
    assert two.calibration.tokens[0] == two.tokens.sum()
    assert math.isnan(paired("a", one, "b", two, same_tokenizer=True).better)
    assert (
        measured(model=lambda target_BL: dataclasses.replace(step(target_BL), nll=800.0 + 0 * target_BL)).perplexity
        == math.inf
    )


def test_other_documents_are_not_compared():
    assert paired("a", measured(), "b", measured(texts=["abcde", "f", "ghik"]), same_tokenizer=True) is None
