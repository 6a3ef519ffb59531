"""Loss on a fixed split: every validation token is predicted once, in a fixed order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

import jax
import numpy as np

from sparsejax.training.feed import Batch
from sparsejax.training.loss import LossSums
from sparsejax.training.state import Tree

# Tokens counted at a time, so that a memory-mapped corpus is never in memory as a whole.
_CHUNK = 1 << 24

EvalStep = Callable[[Tree, Tree, jax.typing.ArrayLike], LossSums]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Mean loss over a split.

    Attributes:
      loss: nats a token.
      tokens: predicted tokens.
      bits_per_byte: ``loss / ln 2 * tokens / bytes`` with the bytes of the text that these tokens stand for.
      bytes_per_token: those bytes over those tokens.
    """

    loss: float
    tokens: int
    bits_per_byte: float
    bytes_per_token: float

    @property
    def perplexity(self) -> float:
        """``exp(loss)``."""
        return math.exp(min(self.loss, 700.0))


def evaluate(
    eval_step: EvalStep,
    params: Tree,
    topology: Tree,
    batches: Iterable[Batch],
    text_bytes: float,
    stop: Callable[[], bool],
) -> Evaluation | None:
    """Evaluate on ``batches`` of targets ``[B, T]``; None if ``stop()`` asked to end before the last batch.

    ``text_bytes`` is what the tokens of all batches stand for, in bytes of UTF-8.

    Sums are added in float64 on the host, so the result does not depend on how many batches there are.
    """
    nll, tokens = 0.0, 0.0
    for target_BT in batches:
        if stop():
            return None
        sums = eval_step(params, topology, target_BT)
        nll += float(sums.nll)
        tokens += float(sums.tokens)
    loss = nll / tokens
    ratio = text_bytes / tokens
    return Evaluation(loss, int(tokens), bits_per_byte(loss, ratio), ratio)


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """Nats a token as bits a byte of text: ``loss / (ln 2 * bytes_per_token)``."""
    return loss / (math.log(2) * bytes_per_token)


def unigram_loss(train_tokens: np.ndarray, validation_tokens: np.ndarray, vocab_size: int) -> float:
    """Nats a token of the best model without context: training frequencies, one added to every count."""
    counts = np.ones(vocab_size, np.float64)
    for start in range(0, len(train_tokens), _CHUNK):
        counts += np.bincount(train_tokens[start : start + _CHUNK], minlength=vocab_size)
    log_p = np.log(counts) - np.log(counts.sum())
    return float(-log_p[validation_tokens].mean())
