"""The three requests of the LM evaluation harness, without the harness: scoring, rolling scoring, generation.

What is cut, windowed and counted follows lm-evaluation-harness 0.4 (``lm_eval/api/model.py``, ``lm_eval/utils.py``),
with two differences. Every context begins with the start token, as every training row did, also where it was cut. And
where one token spans the end of the context, the continuation is scored from that token on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparsejax.config import ConfigError
from sparsejax.data.tokenizer import Tokenizer
from sparsejax.files.text import one_line
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
      end_ids: tokens that end a text as the tokenizer's own end does.
    """

    engine: Engine
    tokenizer: Tokenizer
    length: int
    batch_size: int
    end_ids: tuple[int, ...] = ()

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Log-likelihood in nats of each continuation behind its context, and whether greedy decoding gives it.

        Raises:
          ConfigError: a continuation has more tokens than the context holds, or none though it is not empty.
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
          ConfigError: an argument that is not understood, or a value that cannot be.
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
                    end_ids=self.end_ids,
                )
                for piece in pieces:
                    texts[batch[piece.row]] += piece.text
        return texts

    def _encoded(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of both; spaces at the end of the context belong to the continuation, which begins with them.

        Both are encoded as one text, and parted where it parts from the context alone.
        """
        bare = context.rstrip()
        before, whole = self.tokenizer.encode(bare), self.tokenizer.encode(context + continuation)
        pairs = enumerate(zip(before, whole, strict=False))
        shared = next((place for place, (one, other) in pairs if one != other), min(len(before), len(whole)))
        if continuation and shared == len(whole):
            # The tokenizer drops it there, such as a space at the end of a text.
            alone = self.tokenizer.encode(continuation)
            if not alone:
                raise ConfigError(f"the continuation {one_line(repr(continuation), 60)} has no tokens; leave it out")
            return before, alone
        return whole[:shared], whole[shared:]

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
        """Read the ``generation_kwargs`` of a request; what is null counts as not given."""
        unknown = sorted(set(arguments) - _UNDERSTOOD)
        if unknown:
            raise ConfigError(
                f"generation_kwargs: {one_line(', '.join(unknown))} is not understood; there are {_understood()}"
            )
        told = {name: value for name, value in arguments.items() if value is not None}
        until = told["until"] if "until" in told else []
        strings = [until] if isinstance(until, str) else until
        if not isinstance(strings, list | tuple) or not all(isinstance(string, str) for string in strings):
            raise _wrong("until", until, "a text or a list of texts")
        most = next((name for name in _MOST_TOKENS if name in told), None)
        tokens = _DEFAULT_TOKENS if most is None else told[most]
        if not _is_whole(tokens) or not 1 <= tokens < 2**31:
            raise _wrong(str(most), tokens, "a whole number of at least 1")
        return cls(tuple(filter(None, strings)), int(tokens), _sampling(told))


def check_generation(arguments: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` if the ``generation_kwargs`` of a task cannot be obeyed."""
    _Generation.of(arguments)


def _sampling(told: Mapping[str, Any]) -> Sampling:
    """Greedy unless ``do_sample`` or a temperature above 0 says otherwise; ``do_sample=False`` always is."""
    defaults: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    temperature, top_k, top_p = ((defaults | dict(told))[name] for name in defaults)
    if not _is_number(temperature) or not 0 <= temperature < math.inf:
        raise _wrong("temperature", temperature, "a number of at least 0")
    if not _is_whole(top_k) or top_k < 0:
        raise _wrong("top_k", top_k, "a whole number of at least 0; 0 means all")
    if not _is_number(top_p) or not 0 < top_p <= 1:
        raise _wrong("top_p", top_p, "in (0, 1]; 1 means all")
    samples = told["do_sample"] if "do_sample" in told else "temperature" in told and temperature > 0
    if not isinstance(samples, bool):
        raise _wrong("do_sample", samples, "true or false")
    return Sampling(float(temperature), int(top_k), float(top_p)) if samples else GREEDY


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and value == value // 1 and abs(value) < math.inf


def _wrong(name: str, value: Any, rule: str) -> ConfigError:
    return ConfigError(f"generation_kwargs: {name}={one_line(value, 60)}: must be {rule}")


def _understood() -> str:
    return ", ".join(sorted(_UNDERSTOOD))
