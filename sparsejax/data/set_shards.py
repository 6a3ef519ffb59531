"""Shards of a token set: the same section of every piece, merged in order of the documents' keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.data.sealed import Sealed, read_sealed, sealed_json
from sparsejax.data.set_pieces import PartPieces, read_section
from sparsejax.data.storage import PARALLEL_READS, StoredDirectory
from sparsejax.data.token_set import Count, Sha256, Shard, shard_name


class _Description(Sealed, frozen=True):
    """The record beside a shard: the fields of ``Shard``."""

    file: str
    tokens: Count
    documents: Count
    sha256: Sha256


def write_shard(
    directory: StoredDirectory, parts: Sequence[PartPieces], split: str, number: int, shards: int, dtype: str
) -> None:
    """Merges one shard and stores it; holds about three times its bytes in memory."""

    def section(part: int) -> tuple[np.ndarray, np.ndarray]:
        return read_section(directory, part, split, parts[part].splits[split], number, dtype)

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        sections = list(pool.map(section, range(len(parts))))
    documents = np.concatenate([found for found, _ in sections])
    ids = np.concatenate([found for _, found in sections])
    del sections
    keys, lengths = documents[:, 0], documents[:, 1].astype(np.int64)
    ends = np.cumsum(lengths)
    # Stable, so that equal keys keep the order of the source here as in a token file.
    order = np.argsort(keys, kind="stable")
    merged = np.concatenate([ids[:0], *(ids[ends[i] - lengths[i] : ends[i]] for i in order)])
    name = shard_name(split, number, shards)
    content = merged.tobytes()
    directory.write(name, content)
    shard = _Description(name, len(merged), len(order), hashlib.sha256(content).hexdigest())
    directory.write(_description(name), sealed_json(shard))


def read_shard(directory: StoredDirectory, name: str) -> Shard:
    """Read the description of a shard that has been written; raises ``ConfigError`` if it is damaged."""
    description = _description(name)
    where = f"{directory.location}/{description}"
    fix = "delete it and run the command again"
    found = read_sealed(directory.read(description), _Description, name=where, fix=fix)
    if found.file != name:
        raise ConfigError(f"{where}: is of another shard; {fix}")
    return Shard(found.file, found.tokens, found.documents, found.sha256)


def whole_shards(directory: StoredDirectory, names: Sequence[str], itemsize: int) -> set[str]:
    """Those of ``names`` that are there with a description, and have the size it says."""
    sizes = directory.sizes()
    described = [name for name in names if name in sizes and _description(name) in sizes]
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        shards = pool.map(lambda name: read_shard(directory, name), described)
        return {name for name, shard in zip(described, shards, strict=True) if sizes[name] == shard.tokens * itemsize}


class ShardContent(NamedTuple):
    """Facts of the ids of a shard.

    Attributes:
      sha256: of the file.
      largest: the largest id, -1 of none.
      ends: number of end ids.
    """

    sha256: str
    largest: int
    ends: int


def read_content(directory: StoredDirectory, name: str, dtype: str, end_id: int) -> ShardContent:
    """Reads a shard once, whole; raises ``OSError``."""
    ids = _Ids(dtype, end_id)
    sha256 = directory.copy_to(name, cast(BinaryIO, ids))
    return ShardContent(sha256, ids.largest, ids.ends)


class _Ids:
    """A file to write to that keeps nothing of the ids but what ``ShardContent`` says."""

    def __init__(self, dtype: str, end_id: int) -> None:
        self._dtype, self._end_id = np.dtype(dtype), end_id
        self._rest = b""
        self.largest, self.ends = -1, 0

    def write(self, content: bytes) -> None:
        content = self._rest + content
        whole = len(content) // self._dtype.itemsize * self._dtype.itemsize
        self._rest = content[whole:]
        ids = np.frombuffer(content[:whole], self._dtype)
        self.largest = max(self.largest, int(ids.max(initial=0)))
        self.ends += int((ids == self._end_id).sum())


def _description(name: str) -> str:
    return name.removesuffix(".bin") + ".json"
