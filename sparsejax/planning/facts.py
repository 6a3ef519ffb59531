"""What a check needs to know of a corpus that need not be there: vocabulary and number of steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sparsejax.config import ConfigError, DataConfig, RunConfig
from sparsejax.data.open_set import set_tokenizer
from sparsejax.data.tokenizer import Tokenizer, fixed_tokenizer


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a run learns from its corpus, and a check has to know without one.

    Attributes:
      steps: optimizer steps.
      vocab_size: rows of the embedding.
      start_id: token in front of every row; a constant of the program.
      notes: how they were found, one line each, where the configuration does not say it all.
    """

    steps: int
    vocab_size: int
    start_id: int
    notes: tuple[str, ...] = ()


def facts_of(run: RunConfig, *, steps: int, vocab_size: int) -> Facts:
    """Vocabulary and steps of a run whose text is not opened.

    The vocabulary is ``vocab_size`` if above 0; else that of the token set or the tokenizer's file where the
    configuration names one that is here, and 257 for bytes; else ``data.vocab_size``.
    Steps are ``steps`` if above 0, else ``train.steps``;
    else they follow from ``train.epochs`` and ``data.unique_tokens``.

    Raises:
      ConfigError: nothing says how large the vocabulary or how long the run is, or the token set has another tokenizer.
    """
    data, notes = run.data, []
    start_id = 0
    tokenizer = _tokenizer_here(data)
    if tokenizer is not None:
        found, start_id = tokenizer.vocab_size, tokenizer.start_id
    else:
        found = data.vocab_size
        missing = "the token set" if data.source == "tokens" else "data.tokenizer_path"
        if (data.tokenizer != "bpe" or data.source == "tokens") and not vocab_size:
            notes.append(f"vocabulary: data.vocab_size={found}, for {missing} is not here")
    if not (vocab_size or found):
        raise ConfigError("data.vocab_size=0: says nothing about the vocabulary; give --vocab_size")
    return Facts(_steps(run, steps), vocab_size or found, start_id, tuple(notes))


def _tokenizer_here(data: DataConfig) -> Tokenizer | None:
    if data.source == "tokens" and (found := set_tokenizer(data)) is not None:
        return found
    if data.tokenizer == "byte" or (data.tokenizer != "bpe" and Path(data.tokenizer_path).is_file()):
        return fixed_tokenizer(data.tokenizer, data.tokenizer_path)
    return None


def _steps(run: RunConfig, steps: int) -> int:
    train, data = run.train, run.data
    if steps or train.steps:
        return steps or train.steps
    if not data.unique_tokens:
        raise ConfigError(
            f"train.epochs={train.epochs}: how many steps that is depends on the corpus; give --steps, or a budget "
            "with --config.data.unique_tokens"
        )
    rows = data.unique_tokens // data.sequence_length * train.epochs
    return -(-rows // train.batch_size)
