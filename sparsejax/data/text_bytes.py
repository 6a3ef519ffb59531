"""UTF-8 bytes of text that stretches of a split stand for, which is what bits a byte are counted over."""

from __future__ import annotations

import functools

import numpy as np

from sparsejax.data.token_files import TokenFile
from sparsejax.data.tokenizer import Tokenizer

# Ids looked at a time, so that a memory-mapped file is never in memory as a whole.
_CHUNK = 1 << 22


class TextBytes:
    """Bytes of the text of any tokens of a split.

    The bytes of the whole split are known from its text. Those of a stretch are the sum over its tokens of the bytes
    that each stands for, times one factor that makes the sum over the whole split right: 1 for bytes and byte-level
    tokenizers, near 1 for those that change the text before they cut it.
    """

    def __init__(self, split: TokenFile, tokenizer: Tokenizer) -> None:
        """Reads nothing yet.

        Args:
          split: a whole split.
          tokenizer: what made its ids.
        """
        self._split, self._tokenizer = split, tokenizer

    def between(self, start: int, stop: int) -> float:
        """Bytes of the tokens ``start`` to ``stop``."""
        if (start, stop) == (0, self._split.tokens):
            return float(self._split.meta.text_bytes)
        return self._sum(start, stop) * self._factor

    @functools.cached_property
    def _sizes_V(self) -> np.ndarray:
        return self._tokenizer.token_bytes()

    @functools.cached_property
    def _factor(self) -> float:
        return self._split.meta.text_bytes / max(self._sum(0, self._split.tokens), 1)

    def _sum(self, start: int, stop: int) -> int:
        ids = self._split.ids
        return sum(int(self._sizes_V[ids[a : min(a + _CHUNK, stop)]].sum()) for a in range(start, stop, _CHUNK))
