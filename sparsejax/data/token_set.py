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

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

FORMAT = "token set 1"
MANIFEST = "manifest.json"
PLAN = "plan.json"
PIECES = "pieces"
SHARDS = "shards"
TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class Shard:
    """One shard.

    Attributes:
      file: its name in the set.
      tokens: number of ids.
      documents: number of documents.
      sha256: of the file.
    """

    file: str
    tokens: int
    documents: int
    sha256: str


@dataclass(frozen=True)
class SetSplit:
    """One split of a set.

    Attributes:
      tokens: number of ids in all shards.
      text_bytes: bytes of UTF-8 text they stand for.
      documents: number of documents.
      shards: in order; a shard may be empty.
    """

    tokens: int
    text_bytes: int
    documents: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Manifest:
    """What a finished set says of itself.

    Attributes:
      format: ``FORMAT``.
      data_digest: digest of the text of both splits: that of the corpus, wherever its files lay.
      tokenizer: value of ``data.tokenizer`` it was made with.
      tokenizer_digest: digest of the tokenizer.
      dtype: ``<u2`` or ``<u4``.
      splits: by name.
    """

    format: str
    data_digest: str
    tokenizer: str
    tokenizer_digest: str
    dtype: str
    splits: dict[str, SetSplit]

    @property
    def itemsize(self) -> int:
        """Bytes of one id."""
        return np.dtype(self.dtype).itemsize

    def to_json(self) -> bytes:
        """The content of ``manifest.json``."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Reads it back; raises ``ValueError`` if it is not a manifest of this format."""
        try:
            fields = json.loads(content)
            splits = {name: _split(fields_of_split) for name, fields_of_split in fields.pop("splits").items()}
            manifest = cls(splits=splits, **fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{MANIFEST} cannot be read: {error}") from error
        if manifest.format != FORMAT:
            raise ValueError(f"{MANIFEST} is of format {manifest.format!r}, not {FORMAT!r}")
        return manifest


def shard_name(split: str, number: int, shards: int) -> str:
    """Name of a shard in its set."""
    return f"{SHARDS}/{split}-{number:05d}-of-{shards:05d}.bin"


def _split(fields: dict[str, Any]) -> SetSplit:
    shards = tuple(Shard(**shard) for shard in fields.pop("shards"))
    return SetSplit(shards=shards, **fields)
