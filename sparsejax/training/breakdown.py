"""Where a loss comes from: by position in the context, by how often training saw the token; and how calibrated it is.

Legend: D documents, L positions, K bins, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from sparsejax.data.sharded_ids import ShardedIds
from sparsejax.training.clusters import Mean, ratio

# Equal bins of the confidence, as many as Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599).
CONFIDENCE_BINS = 15

# Ends of the frequency bins, in occurrences a million training tokens; below the first are the unseen.
_PER_MILLION = (1.0, 10.0, 100.0, 1000.0, 10000.0)
FREQUENCY_LABELS = ("unseen", "below 1", "1 to 10", "10 to 100", "100 to 1,000", "1,000 to 10,000", "10,000 and more")

# Training tokens that are counted: documents are shuffled, so the first ones are a sample.
_COUNTED_TOKENS = 1 << 27
_CHUNK = 1 << 24


@dataclasses.dataclass(frozen=True)
class Bin:
    """One part of the tokens.

    Attributes:
      label: which.
      tokens: how many.
      loss: nats a token, with its standard error over documents.
    """

    label: str
    tokens: int
    loss: Mean


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Confidence, the probability of the most likely next token, beside how often that token is right.

    Attributes:
      tokens: tokens of each confidence bin.
      confidence: mean confidence of each; NaN where there is no token.
      accuracy: share of the tokens of each whose most likely token is the target; NaN where there is none.
      error: expected calibration error, ``sum_k n_k / n |accuracy_k - confidence_k|`` (Guo et al. 2017, equation 5).
      overall: share of all tokens whose most likely token is the target.
    """

    tokens: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    error: float
    overall: float


def position_bins(length: int) -> np.ndarray:
    """The bin of each position of ``[0, L)``: 0, 1, 2-3, 4-7, 8-15 and so on; int64 ``[L]``."""
    return np.array([position.bit_length() for position in range(length)], np.int64)


def position_labels(length: int) -> list[str]:
    """Names of the bins of ``position_bins``."""
    labels = ["0"]
    for k in range(1, (length - 1).bit_length() + 1):
        low, high = 1 << (k - 1), min((1 << k) - 1, length - 1)
        labels.append(str(low) if low == high else f"{low} to {high}")
    return labels


def training_counts(ids: np.ndarray | ShardedIds, budget: int, vocab_size: int) -> np.ndarray:
    """How often each token stands in the first tokens of a training split, int64 ``[V]``.

    Args:
      ids: the split.
      budget: unique tokens that training drew from; 0 is all. At most 2^27 of them are counted.
      vocab_size: V.
    """
    wanted = min(budget or ids.size, ids.size, _COUNTED_TOKENS)
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, wanted, _CHUNK):
        counts += np.bincount(ids[start : min(start + _CHUNK, wanted)], minlength=vocab_size)
    return counts


def frequency_bins(counts_V: np.ndarray) -> np.ndarray:
    """The bin of each token id by its count among the training tokens: see ``FREQUENCY_LABELS``; int64 ``[V]``."""
    per_million = counts_V * (1e6 / max(int(counts_V.sum()), 1))
    return np.where(counts_V > 0, 1 + np.searchsorted(_PER_MILLION, per_million, side="right"), 0)


def bins(labels: list[str] | tuple[str, ...], nll_DK: np.ndarray, tokens_DK: np.ndarray) -> list[Bin]:
    """The bins that have tokens, from sums by document."""
    return [
        Bin(label, int(tokens_DK[:, k].sum()), ratio(nll_DK[:, k], tokens_DK[:, k]))
        for k, label in enumerate(labels)
        if tokens_DK[:, k].any()
    ]


def calibration(tokens_K: np.ndarray, confidence_K: np.ndarray, correct_K: np.ndarray) -> Calibration:
    """From sums over the tokens of each confidence bin: how many, of their confidence, how many were right."""
    total = max(float(tokens_K.sum()), 1.0)
    seen = tokens_K > 0
    mean, accuracy = (np.where(seen, sums / np.maximum(tokens_K, 1), math.nan) for sums in (confidence_K, correct_K))
    error = float(np.sum(np.abs(correct_K - confidence_K)[seen]) / total)
    return Calibration(
        tuple(int(n) for n in tokens_K),
        tuple(mean.tolist()),
        tuple(accuracy.tolist()),
        error,
        float(correct_K.sum() / total),
    )
