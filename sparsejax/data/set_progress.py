"""Progress of a process that writes a token set: how far it is, how long the rest takes, what it needs."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from sparsejax.data.cache import Notice

_GB = 1e9
_SECONDS_BETWEEN_LINES = 10.0
# Pieces and shards are there together until the set is finished.
_COPIES = 2


class SetProgress:
    """Estimates from the parts tokenised so far, in proportion to the bytes of their files."""

    def __init__(self, part_bytes: Sequence[int], todo: Sequence[int], local: Path | None, notice: Notice) -> None:
        """Says what is to be done.

        Args:
          part_bytes: bytes of every part of the corpus; 0 where that is not known.
          todo: the parts this process will tokenise.
          local: directory of the set, None if it is not on this machine.
          notice: told each line.
        """
        self._part_bytes, self._todo, self._local, self._notice = part_bytes, todo, local, notice
        self._finished: list[int] = []
        self._tokens = self._id_bytes = self._text_bytes = 0
        self._began = time.monotonic()
        self._said = -_SECONDS_BETWEEN_LINES
        line = f"tokenising {len(todo)} of {len(part_bytes)} parts"
        if sum(part_bytes):
            line += f", {self._bytes(todo) / _GB:.3g} of {sum(part_bytes) / _GB:.3g} GB"
        notice(line)

    def done(self, part: int, tokens: int, id_bytes: int, text_bytes: int) -> None:
        """Part ``part`` gave so many tokens, bytes of ids and bytes of text."""
        first = not self._finished
        self._finished.append(part)
        self._tokens += tokens
        self._id_bytes += id_bytes
        self._text_bytes += text_bytes
        now = time.monotonic()
        last = len(self._finished) == len(self._todo)
        if not last and now - self._said < _SECONDS_BETWEEN_LINES:
            return
        self._said = now
        seconds = max(now - self._began, 1e-9)
        line = f"{len(self._finished)} of {len(self._todo)} parts: {self._tokens:,} tokens"
        line += f", {self._text_bytes / 1e6 / seconds:.3g} MB/s of text"
        read = self._bytes(self._finished)
        if read and not last:
            line += f", about {math.ceil(seconds * (self._bytes(self._todo) - read) / read / 60)} min left"
        self._notice(line)
        if first and read:
            self._say_space(read)

    def _say_space(self, read: int) -> None:
        """Say how much the whole set takes, and whether that is free."""
        size = self._id_bytes * sum(self._part_bytes) / read
        line = f"the set will take about {size / _GB:.3g} GB, and {_COPIES} times that until it is finished"
        if self._local is not None:
            free = shutil.disk_usage(self._local).free
            line += f"; {free / _GB:.3g} GB are free"
            if free < _COPIES * size:
                line += ", which is TOO LITTLE unless other parts are already there"
        self._notice(line)

    def _bytes(self, parts: Sequence[int]) -> int:
        return sum(self._part_bytes[part] for part in parts)
