"""Documents as ids in their shuffled order, in bounded memory: into a scratch file as they come, then sorted by key.

Both token files and the pieces of a token set are written here, so that one is byte for byte made of the other.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.data.document import Document, address, order_key
from sparsejax.data.tokenizer import Tokenizer

IdType: TypeAlias = Literal["<u2", "<u4"]

_BATCH_CHARACTERS = 2**20
_BATCH_DOCUMENTS = 1024
_COPY_TOKENS = 2**22


class Shuffled(NamedTuple):
    """Facts of what was written, D documents.

    Attributes:
      tokens: number of ids.
      text_bytes: bytes of UTF-8 text they stand for.
      keys: ``[D]`` uint64, ascending; the order keys of the documents in the file's order.
      lengths: ``[D]`` int64, their numbers of ids.
      sha256: of the file.
    """

    tokens: int
    text_bytes: int
    keys: np.ndarray
    lengths: np.ndarray
    sha256: str


class ShuffledDocuments:
    """Collects the ids of one split in source order, then writes them in the shuffled order of documents."""

    def __init__(self, scratch: Path, dtype: str) -> None:
        """Ids of ``dtype`` wait in the file ``scratch``, which is created and, in the end, deleted."""
        self._lengths = array("Q")
        self._keys = array("Q")
        self._scratch = scratch
        self._dtype = dtype
        self._text_bytes = 0
        self._part = self._place = 0
        self._file = scratch.open("wb")

    def __enter__(self) -> ShuffledDocuments:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def documents(self) -> int:
        """Number of documents collected."""
        return len(self._lengths)

    def start_part(self, part: int) -> None:
        """The next documents are those of part number ``part`` of the source."""
        self._part, self._place = part, 0

    def append(self, text: str, ids: list[int]) -> None:
        """Adds a document, ``ids`` including its end id."""
        self._file.write(np.asarray(ids, dtype=self._dtype).tobytes())
        self._lengths.append(len(ids))
        self._keys.append(order_key(address(self._part, self._place)))
        self._text_bytes += len(text.encode())
        self._place += 1

    def shuffle_into(self, path: Path) -> Shuffled:
        """Writes the final file, deletes the scratch file. Equal keys keep the order of the source."""
        self._file.close()
        keys, lengths = np.asarray(self._keys, np.uint64), np.asarray(self._lengths).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        ends = np.cumsum(lengths)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            if len(order):
                source = np.memmap(self._scratch, dtype=self._dtype, mode="r")
                for documents in _groups(order, lengths):
                    chunk = np.concatenate([source[ends[i] - lengths[i] : ends[i]] for i in documents]).tobytes()
                    digest.update(chunk)
                    file.write(chunk)
                del source
        self._scratch.unlink()
        return Shuffled(int(lengths.sum()), self._text_bytes, keys[order], lengths[order], digest.hexdigest())


def append_tokenised(
    documents: Iterable[tuple[str, Document]], tokenizer: Tokenizer, writers: Mapping[str, ShuffledDocuments]
) -> None:
    """Tokenises documents, many at a time, and appends each to the writer of its split.

    Raises:
      ConfigError: the tokenizer gives an id outside its vocabulary, which the files might have no room for.
    """
    for batch in _batches(documents):
        ids = tokenizer.encode_documents([document.text for _, document in batch])
        for (split, document), document_ids in zip(batch, ids, strict=True):
            if max(document_ids) >= tokenizer.vocab_size:
                raise ConfigError(
                    f"data.tokenizer: gives the id {max(document_ids)}, its vocabulary ends before "
                    f"{tokenizer.vocab_size}; name another tokenizer"
                )
            writers[split].append(document.text, document_ids)


def id_dtype(tokenizer: Tokenizer) -> IdType:
    """The smallest of little-endian uint16 and uint32 that holds every id."""
    return "<u2" if tokenizer.vocab_size < 2**16 else "<u4"


def _batches(documents: Iterable[tuple[str, Document]]) -> Iterator[list[tuple[str, Document]]]:
    batch: list[tuple[str, Document]] = []
    characters = 0
    for split, document in documents:
        batch.append((split, document))
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _groups(order: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """``order`` cut into runs of documents with about ``_COPY_TOKENS`` ids each."""
    group = np.cumsum(lengths[order]) // _COPY_TOKENS
    yield from np.split(order, np.flatnonzero(np.diff(group)) + 1)
