"""Ids in several files that read like one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


class ShardedIds:
    """The ids of memory-mapped files, one file after the other; slices of it are arrays.

    Attributes:
      size: number of ids.
      dtype: of an id.
    """

    def __init__(self, files: Sequence[Path], dtype: str) -> None:
        """Maps the files, at least one of which has ids; an empty file has none."""
        self._maps = [np.memmap(path, dtype=dtype, mode="r") for path in files if path.stat().st_size]
        self._ends = np.cumsum([found.size for found in self._maps])
        self.size = int(self._ends[-1])
        self.dtype = np.dtype(dtype)

    def __getitem__(self, wanted: slice) -> np.ndarray:
        """The ids of a slice without a step; read-only where they lie in one file, copied where they do not."""
        start, stop, step = wanted.indices(self.size)
        if step != 1:
            raise ValueError(f"slices with a step of {step} are not supported")
        pieces = []
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            end = min(stop, int(self._ends[shard]))
            begin = int(self._ends[shard]) - self._maps[shard].size
            pieces.append(self._maps[shard][start - begin : end - begin])
            start, shard = end, shard + 1
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)
