"""From a data configuration to batches: the corpus, the training batches of a budget, the validation batches.

Legend: B rows a batch, L tokens a row, P equal parts of a batch. A row is L consecutive ids of a token file and the
*targets* of one sequence; the model's input is the row shifted right behind the tokenizer's start id, so every token of
a row is predicted once. The target -1 is padding and ignored.

Part k of P is rows ``k B / P`` to ``(k + 1) B / P``. A host reads only the parts its devices hold; which they are
changes nothing in what a batch is.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grain
import numpy as np

from sparsejax.config import RANGES, ConfigError, DataConfig
from sparsejax.data.bpe import open_bpe
from sparsejax.data.cache import FileDigests, Notice, cache_root
from sparsejax.data.open_set import open_token_set
from sparsejax.data.row_plan import RowPlan
from sparsejax.data.sharded_ids import ShardedIds
from sparsejax.data.splits import TRAIN, VALIDATION, split_corpus
from sparsejax.data.text_bytes import TextBytes
from sparsejax.data.token_files import TokenFile, open_token_files
from sparsejax.data.tokenizer import Tokenizer, fixed_tokenizer

IGNORED = -1
WHOLE = (0,)  # the only part of a batch in one part
_PREFETCHED_BATCHES = 8


@dataclass(frozen=True)
class Corpus:
    """A tokenised corpus.

    Attributes:
      train: token file of the training split.
      validation: token file of the validation split.
      tokenizer: what made the ids.
      data_digest: hexadecimal sha256 of the text of both splits, independent of where files lie.
    """

    train: TokenFile
    validation: TokenFile
    tokenizer: Tokenizer
    data_digest: str

    @functools.cached_property
    def validation_bytes(self) -> TextBytes:
        """Bytes of the text that tokens of the validation split stand for."""
        return TextBytes(self.validation, self.tokenizer)


def open_corpus(config: DataConfig, notice: Notice) -> Corpus:
    """Opens the corpus a configuration names: a token set, or text, tokenised first unless the cache holds it.

    Args:
      config: source, paths, tokenizer, budget and cache directory.
      notice: told, one line each, what takes time and what was found broken.

    Raises:
      ConfigError: a file is missing, empty or unreadable, or a split has no text.
    """
    root = cache_root(config.cache_dir)
    digests = FileDigests(root / "digests")
    if config.source == "tokens":
        found = open_token_set(config, root / "sets", digests, notice)
        return Corpus(found.files[TRAIN], found.files[VALIDATION], found.tokenizer, found.data_digest)
    corpus = split_corpus(config, digests)
    for note in corpus.notes:
        notice(note)
    if config.tokenizer == "bpe":
        tokenizer: Tokenizer = open_bpe(root / "tokenizers", corpus, config.vocab_size, notice)
    else:
        tokenizer = fixed_tokenizer(config.tokenizer, config.tokenizer_path)
    files = open_token_files(root / "tokens", corpus, tokenizer, digests, notice)
    if note := corpus.late_note():
        notice(note)
    return Corpus(files[TRAIN], files[VALIDATION], tokenizer, corpus.digest())


class TrainBatches:
    """The training batches of a unique-token budget: exactly the budget's rows, each exactly ``epochs`` times.

    The token file is cut to the budget first, its rows are shuffled for each epoch, epochs follow one another and
    batches are cut from the whole, so a batch may straddle two epochs. Batch ``i`` is a function of the token
    file, the budget, the seed and ``i`` alone: a run that is stopped continues at any batch, and more steps change
    no earlier one. A run that was trained to its end and is made longer goes on behind its padding, see ``row_plan``.

    Attributes:
      rows: rows in the budget.
      unique_tokens: tokens in the budget, ``rows * L``.
      steps: number of batches.
      epochs: how often each row is seen: the number asked for, or ``steps * B / rows``.
      plan: which rows each batch takes.
    """

    def __init__(
        self,
        token_file: TokenFile,
        *,
        sequence_length: int,
        unique_tokens: int,
        batch_size: int,
        epochs: int,
        steps: int,
        seed: int,
        reshuffle_each_epoch: bool,
        notice: Notice,
        filled: Sequence[int],
    ) -> None:
        """Plans the batches; reads nothing.

        Args:
          token_file: the training split.
          sequence_length: L.
          unique_tokens: the budget, 0 for all; rounded down to whole rows.
          batch_size: B, over all devices and hosts.
          epochs: whole passes over the budget, or 0 if ``steps`` is given. The last batch is filled up with
            rows of -1.
          steps: number of batches, or 0 if ``epochs`` is given. No batch is padded.
          seed: any integer; the order of rows.
          reshuffle_each_epoch: whether each epoch has its own order, or all the first one's.
          notice: told if the budget was rounded.
          filled: epochs that were once the end of the run, after which it was made longer.

        Raises:
          ConfigError: the budget is larger than the token file or smaller than a row.
          ValueError: not exactly one of ``epochs`` and ``steps`` is positive, or ``filled`` is not below ``epochs``.
        """
        self.rows = _budget_rows(token_file, sequence_length, unique_tokens, notice)
        self.unique_tokens = self.rows * sequence_length
        self.plan = RowPlan(self.rows, batch_size, epochs=epochs, steps=steps, filled=filled)
        self.steps = self.plan.steps
        most = RANGES["train.steps"][1]
        if self.steps > most:
            raise ConfigError(
                f"train.epochs={epochs}: makes {self.steps} steps of the text, more than {most}; lower it"
            )
        self.epochs = float(epochs) if epochs else self.plan.stream_rows / self.rows
        self._batch_size = batch_size
        self._sequence_length = sequence_length
        # Grain shuffles epoch e with seed + e: unhashed, run seed 1 would begin with the second epoch of run seed 0.
        shuffle_seed = int.from_bytes(hashlib.sha256(f"rows {seed}".encode()).digest()[:4])
        self._stream = (
            grain.MapDataset.source(_Rows(token_file.ids, sequence_length))
            .slice(slice(0, self.rows))
            .shuffle(seed=shuffle_seed)
            .repeat(-(-self.plan.stream_rows // self.rows), reseed_each_epoch=reshuffle_each_epoch)
        )

    def batch(self, i: int) -> np.ndarray:
        """Batch ``i`` of ``[0, steps)``: int32 ``[B, L]``."""
        if not 0 <= i < self.steps:
            raise IndexError(f"batch {i} is outside [0, {self.steps})")
        return self._rows_of(i, _part_rows(self._batch_size, WHOLE, of=1))

    def epoch_of(self, i: int) -> int:
        """The epoch, from 0, of the first row of batch ``i``."""
        return self.plan.span(i)[0] // self.rows

    def tokens_of(self, batches: int) -> int:
        """Tokens in the first so many batches; rows that fill one up are none."""
        return self.plan.rows_of(batches) * self._sequence_length

    def iterate(self, start: int, parts: Sequence[int] = WHOLE, of: int = 1) -> Iterator[np.ndarray]:
        """Batches ``start`` to the last, read ahead by a thread that ends when the iterator is closed or used up.

        Args:
          start: first batch.
          parts: the parts of each batch to read, in the order they are wanted; the default is the whole batch.
          of: P, the number of equal parts of a batch; divides B.

        Yields:
          int32 ``[len(parts) * B / P, L]`` for each batch; a part beyond the last row is all -1.

        Raises:
          ValueError: ``of`` does not divide B, or a part is outside ``[0, of)``.
        """
        rows = _part_rows(self._batch_size, parts, of)
        if start >= self.steps:
            return
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCHED_BATCHES)
        numbers = grain.MapDataset.range(start, self.steps)
        batches = numbers.map(lambda i: self._rows_of(int(i), rows)).to_iter_dataset(options)
        with contextlib.closing(iter(batches)) as iterator:
            yield from iterator

    def _rows_of(self, i: int, rows: np.ndarray) -> np.ndarray:
        """Batch ``i``, only the rows with these numbers in it."""
        found_RL = np.full((rows.size, self._sequence_length), IGNORED, np.int32)
        first, end = self.plan.span(i)
        for place, position in enumerate(first + rows):
            if position < end:
                found_RL[place] = self._stream[int(position)]
        return found_RL


def validation_batches(
    token_file: TokenFile,
    sequence_length: int,
    batch_size: int,
    max_tokens: int,
    parts: Sequence[int] = WHOLE,
    of: int = 1,
) -> Iterator[np.ndarray]:
    """The first ``max_tokens`` tokens in file order, each once, filled up with -1 at the end.

    Args:
      token_file: the validation split.
      sequence_length: L.
      batch_size: B, over all devices and hosts.
      max_tokens: how many to read at most.
      parts: the parts of each batch to read, in the order they are wanted; the default is the whole batch.
      of: P, the number of equal parts of a batch; divides B.

    Yields:
      int32 ``[len(parts) * B / P, L]``; the number of batches does not depend on the parts.

    Raises:
      ValueError: ``of`` does not divide B, or a part is outside ``[0, of)``.
    """
    rows = _part_rows(batch_size, parts, of)
    tokens = min(token_file.tokens, max_tokens)
    for start in range(0, tokens, batch_size * sequence_length):
        found_RL = np.full((rows.size, sequence_length), IGNORED, np.int32)
        for place, first in enumerate(start + rows * sequence_length):
            ids = token_file.ids[first : min(first + sequence_length, tokens)]
            found_RL[place, : ids.size] = ids
        yield found_RL


def _part_rows(batch_size: int, parts: Sequence[int], of: int) -> np.ndarray:
    """The numbers of the rows of ``parts`` in a batch, part after part."""
    if of < 1 or batch_size % of:
        raise ValueError(f"a batch of {batch_size} rows has no {of} equal parts")
    if not all(0 <= part < of for part in parts):
        raise ValueError(f"parts {tuple(parts)} are not all in [0, {of})")
    return np.arange(batch_size).reshape(of, -1)[list(parts)].reshape(-1)


class _Rows:
    """The whole rows of a token file, as Grain reads them."""

    def __init__(self, ids: np.ndarray | ShardedIds, length: int) -> None:
        self._ids = ids
        self._length = length

    def __len__(self) -> int:
        return self._ids.size // self._length

    def __getitem__(self, row: int) -> np.ndarray:
        start = int(row) * self._length
        return self._ids[start : start + self._length].astype(np.int32)


def _budget_rows(token_file: TokenFile, length: int, unique_tokens: int, notice: Notice) -> int:
    tokens = token_file.tokens
    if tokens < length:
        raise ConfigError(
            f"data.sequence_length={length}: the {token_file.split} split has only {tokens} tokens; "
            "give more text or a shorter row"
        )
    if unique_tokens > tokens:
        raise ConfigError(
            f"data.unique_tokens={unique_tokens}: the {token_file.split} split has only {tokens} tokens; "
            "lower the budget (0 takes all) or give more text"
        )
    if 0 < unique_tokens < length:
        raise ConfigError(
            f"data.unique_tokens={unique_tokens}: is less than one row of data.sequence_length={length} tokens"
        )
    rows = (unique_tokens or tokens) // length
    if unique_tokens % length:
        notice(f"data.unique_tokens={unique_tokens}: rounded down to {rows * length}, {rows} rows of {length} tokens")
    return rows
