"""Bins of position, frequency and confidence, by hand."""

import math

import numpy as np
import pytest

from sparsejax.training.breakdown import (
    CONFIDENCE_BINS,
    FREQUENCY_LABELS,
    bins,
    calibration,
    frequency_bins,
    position_bins,
    position_labels,
    training_counts,
)


def test_positions_double():
    assert position_bins(9).tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 4]
    assert position_labels(9) == ["0", "1", "2 to 3", "4 to 7", "8"]
    assert position_labels(2) == ["0", "1"]
    for length in (2, 7, 8, 256, 1000):
        assert len(position_labels(length)) == position_bins(length).max() + 1


def test_frequencies_are_of_the_budget_in_occurrences_a_million():
    ids = np.array([0, 0, 1, 2, 2, 2], np.uint16)
    assert training_counts(ids, 0, 4).tolist() == [2, 1, 3, 0]
    assert training_counts(ids, 3, 4).tolist() == [2, 1, 0, 0]
    # 10^7 training tokens: counts of 1, 10, 99, 100, 10^5 are 0.1, 1, 9.9, 10 and 10^4 a million.
    counts = np.array([0, 1, 10, 99, 100, 100_000, 10_000_000 - 100_210])
    names = [FREQUENCY_LABELS[k] for k in frequency_bins(counts)]
    assert names[:5] == ["unseen", "below 1", "1 to 10", "1 to 10", "10 to 100"]
    assert names[5:] == ["10,000 and more", "10,000 and more"]


def test_bins_without_tokens_are_left_out():
    nll = np.array([[2.0, 0.0, 1.0], [4.0, 0.0, 0.0]])
    tokens = np.array([[1.0, 0.0, 1.0], [2.0, 0.0, 0.0]])
    first, last = bins(["a", "b", "c"], nll, tokens)
    assert (first.label, first.tokens, first.loss.value, first.loss.error) == ("a", 3, 2.0, 0.0)
    assert (last.label, last.tokens, last.loss.value, last.loss.documents) == ("c", 1, 1.0, 1)


def test_calibration_by_hand():
    tokens, confidence, correct = np.zeros((3, CONFIDENCE_BINS))
    # Two tokens at confidence 0.5, both right; two at 0.9 and 1.0, one right.
    tokens[7], confidence[7], correct[7] = 2, 1.0, 2
    tokens[14], confidence[14], correct[14] = 2, 1.9, 1
    found = calibration(tokens, confidence, correct)
    assert found.error == pytest.approx(2 / 4 * abs(1.0 - 0.5) + 2 / 4 * abs(0.5 - 0.95))
    assert found.overall == 0.75 and found.tokens[7] == 2
    assert (found.confidence[7], found.accuracy[7]) == (0.5, 1.0)
    assert math.isnan(found.accuracy[0]) and math.isnan(found.confidence[0])
