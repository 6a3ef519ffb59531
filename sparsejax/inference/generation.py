"""Texts continued by a model, piece by piece: end token, stop strings, batches of prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from sparsejax.data.tokenizer import Tokenizer
from sparsejax.inference.continuation import Continuation
from sparsejax.inference.engine import Engine
from sparsejax.inference.sampling import Sampling
from sparsejax.inference.text_stream import TextStream

# Why a text ended: its end token, a stop string, or the number of tokens it may have.
End = Literal["end", "stop", "length"]


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of one text.

    Attributes:
      row: which prompt it belongs to.
      text: what follows the pieces before; never a part of a character or of a stop string. May be empty.
      end: why this is the last piece of its row; None if it is not.
      tokens: tokens the row was continued by so far, the end token not counted.
    """

    row: int
    text: str
    end: End | None
    tokens: int


def generate(
    engine: Engine,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    new_tokens: int,
    length: int,
    sampling: Sampling,
    seed: int = 0,
    stop: Sequence[str] = (),
    rows: int = 0,
    end_ids: Collection[int] = (),
) -> Iterator[Piece]:
    """Continue every prompt, all of them together, yielding pieces of text as they become final.

    Args:
      engine: the model.
      tokenizer: the one it was trained with.
      prompts: at least one; may be empty strings, and of different lengths.
      new_tokens: most tokens that a prompt is continued by, at least 1; the end token ends it earlier.
      length: tokens of the longest context, usually the training length; ``Continuation`` says what happens beyond.
      sampling: how tokens are drawn.
      seed: in [0, 2**32 - number of prompts]; prompt i draws with ``seed + i``, so each can be repeated alone.
      stop: a text ends in front of the first of these strings that it would contain.
      rows: of the programs, where there may be fewer prompts: the last batch then compiles nothing. 0 is one a prompt.
      end_ids: tokens that end a text as the tokenizer's own end does.

    Raises:
      ValueError: a length, count or seed that cannot work, or an empty stop string.
    """
    if seed < 0 or seed + len(prompts) > 2**32:
        raise ValueError(f"seed={seed}: must be from 0 to 2**32 less the number of prompts")
    ends = {tokenizer.end_id, *end_ids}
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    texts = [_Row(TextStream(tokenizer, ids, stop), new_tokens) for ids in encoded]
    # What the devices lack of even shares is filled with prompts that nobody looks at.
    wanted = max(rows, len(prompts))
    spare = wanted + -wanted % engine.devices - len(prompts)
    continuation = Continuation(
        engine,
        encoded + [[]] * spare,
        start_id=tokenizer.start_id,
        length=length,
        new_tokens=new_tokens,
        seeds=[seed + row if row < len(prompts) else 0 for row in range(len(prompts) + spare)],
        sampling=sampling,
    )
    for row in range(len(prompts), len(prompts) + spare):
        continuation.finish(row)
    while not all(text.end for text in texts):
        ids_B = continuation.step()
        for row, text in enumerate(texts):
            if not text.end:
                piece = text.take(row, int(ids_B[row]), ends)
                if piece.end:
                    continuation.finish(row)
                yield piece


class _Row:
    """One text on its way."""

    def __init__(self, stream: TextStream, most: int) -> None:
        self._stream, self._most = stream, most
        self.end: End | None = None
        self.tokens = 0

    def take(self, row: int, token: int, ends: Collection[int]) -> Piece:
        """The piece that a token makes final."""
        if token in ends:
            self.end = "end"
            return Piece(row, self._stream.close(), self.end, self.tokens)
        text, self.tokens = self._stream.push(token), self.tokens + 1
        if not self._stream.stopped and self.tokens == self._most:
            text, self.end = text + self._stream.close(), "length"
        if self._stream.stopped:
            self.end = "stop"
        return Piece(row, text, self.end, self.tokens)
