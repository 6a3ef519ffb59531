"""Continuations on a terminal and as rows, as ``sparsejax generate`` writes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from sparsejax.config import ConfigError
from sparsejax.data.tokenizer import Tokenizer
from sparsejax.inference.engine import Engine
from sparsejax.inference.generation import Piece, generate
from sparsejax.inference.sampling import Sampling

_BETWEEN = "\n---\n"


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be written. Fields as the arguments of ``generation.generate``.

    ``batch_size`` prompts are continued together; prompt i of all draws with ``seed + i``. ``new_tokens`` may be 0.
    """

    prompts: Sequence[str]
    new_tokens: int
    length: int
    sampling: Sampling
    seed: int
    stop: Sequence[str]
    batch_size: int
    end_ids: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.seed + len(self.prompts) > 2**32:
            raise ConfigError(f"--seed={self.seed}: with {len(self.prompts)} prompts it must be below 2**32")
        if self.length < 2:
            raise ConfigError(f"--length={self.length}: must be at least 2")


def write_texts(
    engine: Engine,
    tokenizer: Tokenizer,
    request: Request,
    terminal: IO[str],
    notice: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Write every prompt with its continuation, in their order; the text that is next appears while it is made.

    Returns one row a prompt: prompt, text, end, tokens, seed.

    Args:
      engine: the model.
      tokenizer: the one it was trained with.
      request: what to write.
      terminal: where texts go; one that is interrupted still ends its line.
      notice: told in one line if texts outgrow the context.
    """
    longest = max(len(tokenizer.encode(prompt)) for prompt in request.prompts) + 1 + request.new_tokens
    if longest > request.length:
        notice(
            f"sparsejax: up to {longest} tokens, and the context holds {request.length}: the model sees the newest of "
            "them (--length)"
        )
    rows = []
    try:
        for number in range(0, len(request.prompts), request.batch_size):
            rows += _write_batch(engine, tokenizer, request, number, terminal)
    finally:
        terminal.write("\n")
        terminal.flush()
    return rows


def _write_batch(
    engine: Engine, tokenizer: Tokenizer, request: Request, first: int, terminal: IO[str]
) -> list[dict[str, Any]]:
    prompts = request.prompts[first : first + request.batch_size]
    texts, last = [""] * len(prompts), [Piece(row, "", None, 0) for row in range(len(prompts))]

    def shown() -> Iterator[str]:
        """What is to be seen, in order: a row only when all before it are whole."""
        pieces = _pieces(engine, tokenizer, request, prompts, first)
        for row, prompt in enumerate(prompts):
            yield (_BETWEEN if first + row else "") + prompt + texts[row]
            while last[row].end is None:
                piece = next(pieces)
                texts[piece.row] += piece.text
                last[piece.row] = piece
                if piece.row == row:
                    yield piece.text

    for text in shown():
        terminal.write(text)
        terminal.flush()
    return [
        {
            "prompt": prompt,
            "text": texts[row],
            "end": last[row].end,
            "tokens": last[row].tokens,
            "seed": request.seed + first + row,
        }
        for row, prompt in enumerate(prompts)
    ]


def _pieces(
    engine: Engine, tokenizer: Tokenizer, request: Request, prompts: Sequence[str], first: int
) -> Iterator[Piece]:
    if not request.new_tokens:
        return iter([Piece(row, "", "length", 0) for row in range(len(prompts))])
    return generate(
        engine,
        tokenizer,
        prompts,
        new_tokens=request.new_tokens,
        length=request.length,
        sampling=request.sampling,
        seed=request.seed + first,
        stop=request.stop,
        rows=min(request.batch_size, len(request.prompts)),
        end_ids=request.end_ids,
    )
