"""Shards of a token set: the same section of every piece, merged in order of the documents' keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np

from sparsejax.data.set_pieces import PartPieces, read_section
from sparsejax.data.storage import PARALLEL_READS, StoredDirectory
from sparsejax.data.token_set import Shard, shard_name


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
    shard = Shard(name, len(merged), len(order), hashlib.sha256(content).hexdigest())
    directory.write(_description(name), json.dumps(asdict(shard)).encode())


def read_shard(directory: StoredDirectory, name: str) -> Shard:
    """What is known of a shard that has been written."""
    return Shard(**json.loads(directory.read(_description(name))))


def whole_shards(directory: StoredDirectory, names: Sequence[str], itemsize: int) -> set[str]:
    """Those of ``names`` that are there with a description, and have the size it says."""
    sizes = directory.sizes()
    described = [name for name in names if name in sizes and _description(name) in sizes]
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        shards = pool.map(lambda name: read_shard(directory, name), described)
        return {name for name, shard in zip(described, shards, strict=True) if sizes[name] == shard.tokens * itemsize}


def _description(name: str) -> str:
    return name.removesuffix(".bin") + ".json"
