"""Token files: a tokenised corpus as two flat, memory-mapped arrays of ids, one for each split.

Documents, each followed by the end id, are shuffled once by a fixed key and concatenated, so the first N tokens
are a fair sample for every N and smaller budgets are inside larger ones. Building takes two passes in bounded
memory: tokens in source order into a scratch file, then document by document into the shuffled file.

An entry holds ``train.bin``, ``validation.bin`` (little-endian uint16, or uint32 from 65,536 ids up) and
``meta.json``. Its name is a hash of the content of the corpus, the split and the tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.data.cache import CorruptEntryError, Notice, file_sha256, open_or_build
from sparsejax.data.document import Document, order_key
from sparsejax.data.splits import SPLITS, VALIDATION, SplitCorpus
from sparsejax.data.tokenizer import Tokenizer

_META_FILE = "meta.json"
# Part of the name of an entry: raise it when the layout or the order of documents changes.
_FORMAT = "tokens 1"
# Opening an entry hashes files up to this size (about a second per GB); of larger ones it checks the length.
_VERIFIED_BYTES = 4 * 2**30
_BATCH_CHARACTERS = 2**20
_BATCH_DOCUMENTS = 1024
_COPY_TOKENS = 2**22


@dataclass(frozen=True)
class TokenMeta:
    """What is known of one token file.

    Attributes:
      tokens: number of ids, one end id per document included.
      text_bytes: bytes of UTF-8 text they stand for.
      documents: number of documents.
      dtype: ``<u2`` or ``<u4``.
      sha256: of the file.
    """

    tokens: int
    text_bytes: int
    documents: int
    dtype: str
    sha256: str


@dataclass(frozen=True)
class TokenFile:
    """An open split.

    Attributes:
      ids: ``[tokens]`` uint16 or uint32, read-only, backed by the file.
      meta: what is known of it.
      split: ``train`` or ``validation``.
    """

    ids: np.ndarray
    meta: TokenMeta
    split: str

    @property
    def tokens(self) -> int:
        """Number of ids in the file."""
        return self.meta.tokens

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text per id: ``bits/byte = nats/token / (ln 2 * bytes_per_token)``."""
        return self.meta.text_bytes / self.meta.tokens


def open_token_files(
    directory: Path, corpus: SplitCorpus, tokenizer: Tokenizer, notice: Notice
) -> dict[str, TokenFile]:
    """The token file of each split by its name, built first if it is absent or corrupt.

    Args:
      directory: where token files are cached.
      corpus: the documents.
      tokenizer: turns them into ids.
      notice: told when a corpus is tokenised or a corrupt entry replaced.

    Raises:
      ConfigError: a split has no text, or the files of the corpus cannot be read.
    """
    key = hashlib.sha256(f"{_FORMAT}\n{corpus.digest()}\n{tokenizer.digest}".encode()).hexdigest()

    def write(entry: Path) -> None:
        notice(f"tokenising the corpus, {corpus.where} (once, then cached in {directory})")
        _write(entry, corpus, tokenizer)

    return open_or_build(directory / key[:32], _read, write, notice)


def _read(entry: Path) -> dict[str, TokenFile]:
    try:
        fields = json.loads((entry / _META_FILE).read_text())
        metas = {split: TokenMeta(**fields[split]) for split in SPLITS}
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptEntryError(f"{_META_FILE} cannot be read: {error}") from error
    return {split: _open(entry / f"{split}.bin", metas[split], split) for split in SPLITS}


def _open(path: Path, meta: TokenMeta, split: str) -> TokenFile:
    size, expected = path.stat().st_size, meta.tokens * np.dtype(meta.dtype).itemsize
    if size != expected:
        raise CorruptEntryError(f"{path.name} has {size} bytes instead of {expected}")
    if size <= _VERIFIED_BYTES and file_sha256(path) != meta.sha256:
        raise CorruptEntryError(f"the checksum of {path.name} differs")
    return TokenFile(np.memmap(path, dtype=meta.dtype, mode="r"), meta, split)


def _write(entry: Path, corpus: SplitCorpus, tokenizer: Tokenizer) -> None:
    dtype = "<u2" if tokenizer.vocab_size < 2**16 else "<u4"
    writers = {split: _SplitWriter(entry / f"{split}.scratch", dtype) for split in SPLITS}
    with writers[SPLITS[0]], writers[SPLITS[1]]:
        for batch in _batches(corpus.documents()):
            ids = tokenizer.encode_documents([document.text for _, document in batch])
            for (split, document), document_ids in zip(batch, ids, strict=True):
                writers[split].append(document.text, document_ids)
    for split in SPLITS:
        if not writers[split].lengths:
            raise _empty_split(split, corpus, {name: len(writer.lengths) for name, writer in writers.items()})
    metas = {split: asdict(writers[split].shuffle_into(entry / f"{split}.bin")) for split in SPLITS}
    (entry / _META_FILE).write_text(json.dumps(metas, indent=1) + "\n")


def _empty_split(split: str, corpus: SplitCorpus, documents: dict[str, int]) -> ConfigError:
    if not any(documents.values()):
        return ConfigError(f"{corpus.where}: the corpus has no text; name other files")
    if corpus.validation_source is not None:
        field = "data.validation_path" if split == VALIDATION else corpus.where
        return ConfigError(f"{field}: has no text; name other files")
    return ConfigError(
        f"data.validation_fraction={corpus.fraction:g}: none of the {sum(documents.values())} documents fell into the "
        f"{split} split; change it, or give data.validation_path"
    )


def _batches(documents: Iterator[tuple[str, Document]]) -> Iterator[list[tuple[str, Document]]]:
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


class _SplitWriter:
    """Collects the ids of one split in source order, then writes them in the shuffled order of documents."""

    def __init__(self, scratch: Path, dtype: str) -> None:
        self.lengths: list[int] = []
        self._scratch = scratch
        self._dtype = dtype
        self._text_bytes = 0
        self._file = scratch.open("wb")

    def __enter__(self) -> _SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, text: str, ids: list[int]) -> None:
        """Adds a document, ``ids`` including its end id."""
        self._file.write(np.asarray(ids, dtype=self._dtype).tobytes())
        self.lengths.append(len(ids))
        self._text_bytes += len(text.encode())

    def shuffle_into(self, path: Path) -> TokenMeta:
        """Writes the final file, deletes the scratch file."""
        source = np.memmap(self._scratch, dtype=self._dtype, mode="r")
        ends = np.cumsum(np.asarray(self.lengths, dtype=np.int64))
        starts = ends - np.asarray(self.lengths, dtype=np.int64)
        keys = np.fromiter((order_key(position) for position in range(len(ends))), np.uint64, len(ends))
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for documents in _groups(np.argsort(keys, kind="stable"), ends - starts):
                chunk = np.concatenate([source[starts[i] : ends[i]] for i in documents]).tobytes()
                digest.update(chunk)
                file.write(chunk)
        tokens = len(source)
        del source
        self._scratch.unlink()
        return TokenMeta(tokens, self._text_bytes, len(ends), self._dtype, digest.hexdigest())


def _groups(order: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """``order`` cut into runs of documents with about ``_COPY_TOKENS`` ids each."""
    group = np.cumsum(lengths[order]) // _COPY_TOKENS
    yield from np.split(order, np.flatnonzero(np.diff(group)) + 1)
