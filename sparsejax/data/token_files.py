"""Token files: a tokenised corpus as two flat, memory-mapped arrays of ids, one for each split.

Documents, each followed by the end id, are shuffled once by a fixed key and concatenated, so the first N tokens
are a fair sample for every N and smaller budgets are inside larger ones. Building takes two passes in bounded
memory: tokens in source order into a scratch file, then document by document into the shuffled file.

An entry holds ``train.bin``, ``validation.bin`` (little-endian uint16, or uint32 from 65,536 ids up) and
``meta.json``. Its name is a hash of the content of the corpus, the split and the tokenizer.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from sparsejax.config import ConfigError
from sparsejax.data.cache import CorruptEntryError, FileDigests, Notice, file_sha256, open_or_build
from sparsejax.data.sealed import Sealed, read_sealed, sealed_json
from sparsejax.data.sharded_ids import ShardedIds
from sparsejax.data.shuffled_documents import IdType, ShuffledDocuments, append_tokenised, id_dtype
from sparsejax.data.splits import SPLITS, TRAIN, VALIDATION, SplitCorpus
from sparsejax.data.token_set import Count, Sha256
from sparsejax.data.tokenizer import Tokenizer

_META_FILE = "meta.json"
# Part of the name of an entry: raise it when the layout or the order of documents changes.
_FORMAT = "tokens 2"
# Opening an entry hashes files up to this size (a second or so); larger ones once, and again when they have changed.
_HASHED_BYTES = 2**30


class TokenMeta(msgspec.Struct, frozen=True):
    """Facts of one token file.

    Attributes:
      tokens: number of ids, one end id per document included.
      text_bytes: bytes of UTF-8 text they stand for.
      documents: number of documents.
      dtype: ``<u2`` or ``<u4``.
      sha256: of the file.
    """

    tokens: Count
    text_bytes: Count
    documents: Count
    dtype: IdType
    sha256: Sha256


class _Metas(Sealed, frozen=True):
    train: TokenMeta
    validation: TokenMeta


@dataclass(frozen=True)
class TokenFile:
    """An open split.

    Attributes:
      ids: ``[tokens]`` uint16 or uint32, read-only, backed by the file or by the shards of a token set; of a set
        that is larger than the budget only its beginning.
      meta: what is known of it.
      split: ``train`` or ``validation``.
    """

    ids: np.ndarray | ShardedIds
    meta: TokenMeta
    split: str

    @property
    def tokens(self) -> int:
        """Number of ids in the file."""
        return self.meta.tokens


def open_token_files(
    directory: Path, corpus: SplitCorpus, tokenizer: Tokenizer, digests: FileDigests, notice: Notice
) -> dict[str, TokenFile]:
    """The token file of each split by its name, built first if it is absent or corrupt.

    Args:
      directory: where token files are cached.
      corpus: the documents.
      tokenizer: turns them into ids.
      digests: remembers which large files have been checked.
      notice: told when a corpus is tokenised or a corrupt entry replaced.

    Raises:
      ConfigError: a split has no text, or the files of the corpus cannot be read.
    """
    key = hashlib.sha256(f"{_FORMAT}\n{corpus.digest()}\n{tokenizer.digest}".encode()).hexdigest()

    def write(entry: Path) -> None:
        notice(f"tokenising the corpus, {corpus.where} (once, then cached in {directory})")
        _write(entry, corpus, tokenizer)
        corpus.check_unchanged()

    return open_or_build(directory / key[:32], functools.partial(_read, digests), write, notice)


def _read(digests: FileDigests, entry: Path) -> dict[str, TokenFile]:
    try:
        content = (entry / _META_FILE).read_bytes()
        metas = read_sealed(content, _Metas, name=entry / _META_FILE, fix="it is a cache")
    except ConfigError as error:
        raise CorruptEntryError(str(error)) from error
    return {split: _open(entry / f"{split}.bin", getattr(metas, split), split, digests) for split in SPLITS}


def _open(path: Path, meta: TokenMeta, split: str, digests: FileDigests) -> TokenFile:
    size, expected = path.stat().st_size, meta.tokens * np.dtype(meta.dtype).itemsize
    if size != expected:
        raise CorruptEntryError(f"{path.name} has {size} bytes instead of {expected}")
    if not size:
        raise CorruptEntryError(f"{path.name} is empty")
    if (file_sha256(path) if size <= _HASHED_BYTES else digests.digest(path)) != meta.sha256:
        raise CorruptEntryError(f"the checksum of {path.name} differs")
    return TokenFile(np.memmap(path, dtype=meta.dtype, mode="r"), meta, split)


def _write(entry: Path, corpus: SplitCorpus, tokenizer: Tokenizer) -> None:
    dtype = id_dtype(tokenizer)
    writers = {split: ShuffledDocuments(entry / f"{split}.scratch", dtype) for split in SPLITS}
    with writers[SPLITS[0]], writers[SPLITS[1]]:
        for part in corpus.parts:
            for writer in writers.values():
                writer.start_part(part.number)
            append_tokenised(corpus.part_documents(part), tokenizer, writers)
    for split in SPLITS:
        if not writers[split].documents:
            raise empty_split(split, corpus, {name: writer.documents for name, writer in writers.items()})
    metas = {split: _shuffled(entry / f"{split}.bin", writers[split], dtype) for split in SPLITS}
    (entry / _META_FILE).write_bytes(sealed_json(_Metas(train=metas[TRAIN], validation=metas[VALIDATION])))


def _shuffled(path: Path, writer: ShuffledDocuments, dtype: IdType) -> TokenMeta:
    found = writer.shuffle_into(path)
    return TokenMeta(found.tokens, found.text_bytes, len(found.keys), dtype, found.sha256)


def empty_split(split: str, corpus: SplitCorpus, documents: dict[str, int]) -> ConfigError:
    """The error for a split without documents; ``documents`` has the number of each split."""
    if not any(documents.values()):
        return ConfigError(f"{corpus.where}: the corpus has no text; name other files")
    if corpus.validation_source is not None:
        if split == VALIDATION:
            return ConfigError("data.validation_path: has no text; name other files")
        return ConfigError(f"{corpus.where}: has no text that is not in data.validation_path too; name other files")
    return ConfigError(
        f"data.validation_fraction={corpus.fraction:g}: none of the {sum(documents.values())} documents fell into the "
        f"{split} split; change it, or give data.validation_path"
    )
