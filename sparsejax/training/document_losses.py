"""The losses of one model on one text, summed by document and by whatever the reports break them down by.

Legend: D documents, B rows of a batch, L tokens of a row, K bins, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import numpy as np

from sparsejax.training.breakdown import (
    CONFIDENCE_BINS,
    FREQUENCY_LABELS,
    Bin,
    Calibration,
    bins,
    calibration,
    position_bins,
    position_labels,
)
from sparsejax.training.clusters import Mean, ratio
from sparsejax.training.eval_text import Context, EvalText, eval_batches
from sparsejax.training.token_losses import TokenLosses

# Targets ``[B, L]`` in, what the model says of each out.
TokenStep = Callable[[np.ndarray], TokenLosses]


@dataclasses.dataclass(frozen=True, eq=False)
class TextEvaluation:
    """A model on a text.

    Attributes:
      text: name of the text.
      digest: equal for the same documents in the same order.
      nll: ``[D]`` float64, nats of each document.
      tokens: ``[D]`` float64, its predicted tokens, the end token included.
      bytes: ``[D]`` float64, its UTF-8 bytes.
      complete: ``[D]`` bool; False for a last document that was cut by a limit.
      position_loss: ``[L]`` nats a token at each position of the row or window; NaN where there is none.
      positions: the same in bins.
      frequencies: by how often the token stands in the training text; empty where that was not looked at.
      calibration: confidence and accuracy of the next token.
    """

    text: str
    digest: str
    nll: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    complete: np.ndarray
    position_loss: np.ndarray
    positions: list[Bin]
    frequencies: list[Bin]
    calibration: Calibration

    @property
    def loss(self) -> Mean:
        """Nats a token."""
        return ratio(self.nll, self.tokens)

    @property
    def bits_per_byte(self) -> Mean:
        """Bits a UTF-8 byte."""
        return ratio(self.nll / math.log(2), self.bytes)

    @property
    def perplexity(self) -> float:
        """``exp(loss)``; infinite where that is above the numbers of float64."""
        return math.inf if self.loss.value > 700 else math.exp(self.loss.value)


def measure_text(
    step: TokenStep,
    text: EvalText,
    *,
    length: int,
    batch_size: int,
    context: Context,
    frequency_V: np.ndarray | None,
) -> TextEvaluation:
    """Every token of ``text`` predicted once; sums in float64 on the host, so they do not depend on ``batch_size``.

    Args:
      step: the model.
      text: the documents.
      length: L.
      batch_size: B.
      context: what a token is predicted from, see ``eval_text``.
      frequency_V: bin of each token id by its frequency in training (``breakdown.frequency_bins``); None for none.
    """
    sums = _Sums(text, length, frequency_V)
    for target_BL, document_BL in eval_batches(text, length, batch_size, context):
        sums.add(target_BL, document_BL, jax.device_get(step(target_BL)))
    with np.errstate(invalid="ignore"):
        position_loss = sums.position_nll_L / np.where(sums.position_tokens_L > 0, sums.position_tokens_L, np.nan)
    by_frequency = [] if frequency_V is None else bins(FREQUENCY_LABELS, *sums.by_frequency)
    return TextEvaluation(
        text=text.name,
        digest=text.digest,
        nll=sums.nll_D,
        tokens=sums.tokens_D,
        bytes=text.bytes,
        complete=text.complete,
        position_loss=position_loss,
        positions=bins(position_labels(length), *sums.by_position),
        frequencies=by_frequency,
        calibration=calibration(*sums.confidence_3K),
    )


class _Sums:
    """What ``measure_text`` adds up."""

    def __init__(self, text: EvalText, length: int, frequency_V: np.ndarray | None) -> None:
        documents = len(text.ends)
        self.nll_D, self.tokens_D = np.zeros(documents), np.zeros(documents)
        self.position_nll_L, self.position_tokens_L = np.zeros(length), np.zeros(length)
        self._bin_L, self._bin_V = position_bins(length), frequency_V
        # Sums of nats, and numbers of tokens, by document and bin.
        self.by_position = _pair(documents, len(position_labels(length)))
        self.by_frequency = _pair(documents, len(FREQUENCY_LABELS))
        self.confidence_3K = np.zeros((3, CONFIDENCE_BINS))

    def add(self, target_BL: np.ndarray, document_BL: np.ndarray, found: TokenLosses) -> None:
        """Add the tokens of a batch; those of document -1 are padding."""
        counted = document_BL >= 0
        document, target = document_BL[counted], target_BL[counted]
        nll = np.asarray(found.nll, np.float64)[counted]
        position = np.broadcast_to(np.arange(target_BL.shape[1]), target_BL.shape)[counted]
        # Documents of a batch are neighbours: only their part of the sums is touched.
        low, high = int(document.min()), int(document.max()) + 1
        self.nll_D[low:high] += np.bincount(document - low, nll, high - low)
        self.tokens_D[low:high] += np.bincount(document - low, minlength=high - low)
        self.position_nll_L += np.bincount(position, nll, len(self._bin_L))
        self.position_tokens_L += np.bincount(position, minlength=len(self._bin_L))
        _add_binned(self.by_position, low, high, document, self._bin_L[position], nll)
        if self._bin_V is not None:
            _add_binned(self.by_frequency, low, high, document, self._bin_V[target], nll)
        confidence = np.asarray(found.confidence, np.float64)[counted]
        # One that is not a number makes the first bin, and the error of all, not a number.
        bin_ = np.minimum((np.nan_to_num(confidence) * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
        for row, weights in enumerate((np.ones_like(nll), confidence, np.asarray(found.correct)[counted])):
            self.confidence_3K[row] += np.bincount(bin_, weights.astype(np.float64), CONFIDENCE_BINS)


def _pair(documents: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((documents, count)), np.zeros((documents, count))


def _add_binned(
    sums: tuple[np.ndarray, np.ndarray], low: int, high: int, document: np.ndarray, bin_: np.ndarray, nll: np.ndarray
) -> None:
    count = sums[0].shape[1]
    place = (document - low) * count + bin_
    for total, weights in zip(sums, (nll, None), strict=True):
        total[low:high] += np.bincount(place, weights, (high - low) * count).reshape(high - low, count)


@dataclasses.dataclass(frozen=True)
class Difference:
    """Two models on the same documents, document by document.

    Attributes:
      text: name of the text.
      first: what the other one is compared with.
      other: the other one.
      unit: ``nats/token`` where both have one tokenizer, else ``bits/byte``.
      difference: of the other one less the first: negative where the other one is better.
      better: share of the documents on which the other one is better; NaN where a loss is not a number.
    """

    text: str
    first: str
    other: str
    unit: str
    difference: Mean
    better: float


def paired(first: str, one: TextEvaluation, other: str, two: TextEvaluation, same_tokenizer: bool) -> Difference | None:
    """The paired difference of two models; None if they did not see the same documents.

    With one tokenizer, documents are compared token by token, and a last one that a limit cut is cut in the same
    place. With two tokenizers, nats are those of the same bytes, and only documents that both saw whole count; the
    bytes are those of ``one``.
    """
    if one.digest != two.digest:
        return None
    shared = min(len(one.nll), len(two.nll))
    kept = np.ones(shared, bool) if same_tokenizer else one.complete[:shared] & two.complete[:shared]
    if same_tokenizer:
        kept &= one.tokens[:shared] == two.tokens[:shared]
    delta = (two.nll[:shared] - one.nll[:shared])[kept]
    unit, scale, size = ("nats/token", 1.0, one.tokens) if same_tokenizer else ("bits/byte", math.log(2), one.bytes)
    better = float(np.mean(delta < 0)) if delta.size and not np.isnan(delta).any() else math.nan
    return Difference(one.text, first, other, unit, ratio(delta / scale, size[:shared][kept]), better)
