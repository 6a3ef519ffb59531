"""A token set: a tokenised corpus in shards, written by many hosts and opened by any number of trainers.

The shards of a split, one after the other, are byte for byte the token file that one machine builds of the same corpus
(``token_files``). Shard ``s`` of N holds the documents whose order key is in ``[s, s + 1) 2^64 / N``. A set is a
directory, on a disk or in a bucket, of

    manifest.json                     what it is; written last, so that a set without it is not finished
    tokenizer/                        what ``load_tokenizer`` reads
    shards/train-00000-of-00064.bin   little-endian ids; beside each shard its description, .json, written after it
    plan.json                         what the processes that write it must agree on
    pieces/                           one per part of the corpus, see ``set_pieces``; gone when the set is finished
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from sparsejax.config import ConfigError
from sparsejax.data.sealed import Sealed, read_sealed, sealed_json
from sparsejax.data.shuffled_documents import IdType
from sparsejax.files.json_records import decode_record

FORMAT = "token set 1"
MANIFEST = "manifest.json"
PLAN = "plan.json"
PIECES = "pieces"
SHARDS = "shards"
TOKENIZER = "tokenizer"
# What ``save`` of a tokenizer may write there.
TOKENIZER_FILES = ("tokenizer_meta.json", "tokenizer.json", "tokenizer.model")
FIX = "copy it again, or delete it and run 'sparsejax tokenize' again"

# Ids and bytes of a file are counted in int64.
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**60)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Shard(msgspec.Struct, frozen=True):
    """One shard.

    Attributes:
      file: its name in the set.
      tokens: number of ids.
      documents: number of documents.
      sha256: of the file.
    """

    file: str
    tokens: Count
    documents: Count
    sha256: Sha256


class SetSplit(msgspec.Struct, frozen=True):
    """One split of a set.

    Attributes:
      tokens: number of ids in all shards.
      text_bytes: bytes of UTF-8 text they stand for.
      documents: number of documents.
      shards: in order; a shard may be empty.
    """

    tokens: Count
    text_bytes: Count
    documents: Count
    shards: tuple[Shard, ...]


class Splits(msgspec.Struct, frozen=True):
    """The splits of a set, each by its name."""

    train: SetSplit
    validation: SetSplit

    def __getitem__(self, split: str) -> SetSplit:
        return {"train": self.train, "validation": self.validation}[split]


class Manifest(Sealed, frozen=True):
    """The manifest of a finished set.

    Attributes:
      format: ``FORMAT``.
      data_digest: digest of the text of both splits: that of the corpus, wherever its files lay.
      tokenizer: value of ``data.tokenizer`` it was made with.
      tokenizer_digest: digest of the tokenizer.
      dtype: ``<u2`` or ``<u4``.
      splits: by name.
      part_digests: of the parts of the corpus, in order; empty in sets of before they were kept.
    """

    format: str
    data_digest: str
    tokenizer: str
    tokenizer_digest: str
    dtype: IdType
    splits: Splits
    part_digests: tuple[str, ...] = ()

    @property
    def itemsize(self) -> int:
        """Bytes of one id."""
        return np.dtype(self.dtype).itemsize

    def to_json(self) -> bytes:
        """The content of ``manifest.json``."""
        return sealed_json(self)

    @classmethod
    def from_json(cls, content: bytes, name: object = MANIFEST) -> Manifest:
        """Reads it back; raises ``ConfigError`` if it is not a manifest of this format, or says what cannot be."""
        found = decode_record(content, dict[str, Any], name=name, fix=FIX)
        if found.get("format") != FORMAT:
            raise ConfigError(f"{name}: is not of format {FORMAT!r}; {FIX}")
        manifest = read_sealed(content, cls, name=name, fix=FIX)
        for split in (manifest.splits.train, manifest.splits.validation):
            _check_sum(name, "tokens", split.tokens, [shard.tokens for shard in split.shards])
            _check_sum(name, "documents", split.documents, [shard.documents for shard in split.shards])
        return manifest


def _check_sum(name: object, what: str, total: int, parts: Sequence[int]) -> None:
    if not total or total != sum(parts):
        raise ConfigError(f"{name}: a split has {total} {what}, its shards {sum(parts)}; {FIX}")


def shard_name(split: str, number: int, shards: int) -> str:
    """Name of a shard in its set."""
    return f"{SHARDS}/{split}-{number:05d}-of-{shards:05d}.bin"
