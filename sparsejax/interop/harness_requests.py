"""The three requests of the LM evaluation harness, without the harness: scoring, rolling scoring, generation.

What is cut, windowed and counted follows lm-evaluation-harness 0.4 (``lm_eval/api/model.py``, ``lm_eval/utils.py``),
with one difference: every context begins with the start token, as every training row did, also where it was cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparsejax.config import ConfigError
from sparsejax.data.tokenizer import Tokenizer
from sparsejax.inference.engine import Engine
from sparsejax.inference.generation import generate
from sparsejax.inference.sampling import GREEDY, Sampling
from sparsejax.inference.scoring import Score, Scored, score

# What a task gets that does not say how much it wants.
_DEFAULT_TOKENS = 256
# Names of the most new tokens, the first that is there counts.
_MOST_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_UNDERSTOOD = frozenset({"until", "do_sample", "temperature", "top_k", "top_p", *_MOST_TOKENS})


@dataclasses.dataclass(frozen=True)
class HarnessModel:
    """A model as the harness asks it.

    Attributes:
      engine: its programs.
      tokenizer: the one it was trained with.
      length: tokens of the longest context, start token included.
      batch_size: rows of a batch.
    """

    engine: Engine
    tokenizer: Tokenizer
    length: int
    batch_size: int

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Log-likelihood in nats of each continuation behind its context, and whether greedy decoding gives it.

        Raises:
          ConfigError: a continuation has more tokens than the context holds.
        """
        return self._score([self._row(*self._encoded(*pair)) for pair in pairs])

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """Log-likelihood in nats of each whole text behind the start token, window by window."""
        encoded = [self.tokenizer.encode(text) for text in texts]
        windows = [list(rolling_windows(ids, self.tokenizer.start_id, self.length)) for ids in encoded]
        scores = iter(self._score([window for each in windows for window in each]))
        return [sum(next(scores).log_likelihood for _ in each) for each in windows]

    def generate_until(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """The continuation of every context, up to a string of ``until``, the end token or the most new tokens.

        Requests of equal arguments share batches, like lengths together. One that samples draws by its place among
        them, so that equal contexts draw differently.

        Raises:
          ConfigError: an argument that is not understood.
        """
        how = [_Generation.of(arguments) for _, arguments in requests]
        texts = [""] * len(requests)
        for kind in dict.fromkeys(how):
            numbers = [number for number, each in enumerate(how) if each == kind]
            numbers.sort(key=lambda number: -len(requests[number][0]))
            for first in range(0, len(numbers), self.batch_size):
                batch = numbers[first : first + self.batch_size]
                pieces = generate(
                    self.engine,
                    self.tokenizer,
                    [requests[number][0] for number in batch],
                    new_tokens=kind.tokens,
                    length=self.length,
                    sampling=kind.sampling,
                    seed=first,
                    stop=kind.until,
                    rows=min(self.batch_size, len(numbers)),
                )
                for piece in pieces:
                    texts[batch[piece.row]] += piece.text
        return texts

    def _encoded(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of both; spaces at the end of the context belong to the continuation, which begins with them."""
        bare = context.rstrip()
        continuation = context[len(bare) :] + continuation
        before = self.tokenizer.encode(bare)
        return before, self.tokenizer.encode(bare + continuation)[len(before) :]

    def _row(self, context: Sequence[int], continuation: Sequence[int]) -> Scored:
        if len(continuation) > self.length:
            raise ConfigError(
                f"--length={self.length}: a continuation has {len(continuation)} tokens; use a longer context"
            )
        given = [*context, *continuation][:-1]
        # All but the start token: of what does not fit the oldest is left out.
        return Scored([self.tokenizer.start_id, *given[max(0, len(given) - self.length + 1) :]], continuation)

    def _score(self, rows: Sequence[Scored]) -> list[Score]:
        return score(self.engine, rows, length=self.length, batch_size=self.batch_size)


def rolling_windows(tokens: Sequence[int], start_id: int, length: int) -> Iterator[Scored]:
    """Windows of at most ``length`` inputs that predict every token once, each with as much before it as fits.

    The first begins with the start token. Later ones begin with the token before, and the last reaches back as far as
    its inputs go: of 10 tokens with length 4 the windows predict 0-3, 4-7 (from 3-6) and 8-9 (from 5-8).
    """
    for first in range(0, len(tokens), length):
        end = min(first + length, len(tokens))
        if first == 0:
            yield Scored([start_id, *tokens[: end - 1]], tokens[:end])
        else:
            yield Scored(tokens[end - length - 1 : end - 1], tokens[first:end])


@dataclasses.dataclass(frozen=True)
class _Generation:
    """How a request wants its text."""

    until: tuple[str, ...]
    tokens: int
    sampling: Sampling

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> _Generation:
        unknown = sorted(set(arguments) - _UNDERSTOOD)
        if unknown:
            raise ConfigError(f"generation_kwargs: {', '.join(unknown)} is not understood; there are {_understood()}")
        until = arguments["until"] if "until" in arguments else []
        most = next((arguments[name] for name in _MOST_TOKENS if name in arguments), _DEFAULT_TOKENS)
        strings = tuple(string for string in ([until] if isinstance(until, str) else until or []) if string)
        return cls(strings, int(most), _sampling(arguments))


def _sampling(arguments: Mapping[str, Any]) -> Sampling:
    """Greedy unless ``do_sample`` or a temperature above 0 says otherwise; ``do_sample=False`` always is."""
    told = {name: arguments[name] for name in ("temperature", "top_k", "top_p") if name in arguments}
    warm = "temperature" in told and told["temperature"] > 0
    samples = arguments["do_sample"] if "do_sample" in arguments else warm
    if not samples:
        return GREEDY
    return Sampling(**{"temperature": 1.0} | told)


def _understood() -> str:
    return ", ".join(sorted(_UNDERSTOOD))
