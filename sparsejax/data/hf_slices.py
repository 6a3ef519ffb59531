"""Slices of the splits of a Hugging Face data set, ``train[:90%]+test[100:200]``, as ranges of rows.

The grammar and its rounding are those of ``datasets.ReadInstruction``. Slices are resolved here, so that they mean the
same for data sets that the library loads and for saved ones, and so that two settings can be held against each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_SLICE = re.compile(
    r"(?P<split>\w+(\.\w+)*)"
    r"(?P<slice>\[((?P<start>-?\d[\d_]*)(?P<start_percent>%)?)?:((?P<stop>-?\d[\d_]*)(?P<stop_percent>%)?)?\])?"
    r"(\((?P<rounding>closest|pct1_dropremainder)\))?"
)
_LARGEST_PERCENT = 100


class Slice(NamedTuple):
    """A part of a split, before the number of its rows is known.

    Attributes:
      split: its name.
      start: first row, or percent; ``None`` is the first row. Negative ones count from the end.
      stop: the row, or percent, behind the last; ``None`` is the end.
      percent: whether ``start`` and ``stop`` are percent.
      whole_percents: a percent is a hundredth of the rows rounded down; otherwise each end is rounded by itself.
    """

    split: str
    start: int | None
    stop: int | None
    percent: bool
    whole_percents: bool

    def rows(self, size: int) -> range:
        """The rows of a split that has ``size`` of them; raises ``ValueError`` for hundredths of fewer than 100."""
        if self.whole_percents and size < _LARGEST_PERCENT:
            raise ValueError(f"the split {self.split} has {size} rows, too few for pct1_dropremainder")
        start, stop, _ = slice(self._row(self.start, size), self._row(self.stop, size)).indices(size)
        return range(start, max(start, stop))

    def _row(self, end: int | None, size: int) -> int | None:
        if end is None or not self.percent:
            return end
        # Python rounds halves to even numbers, and so does the library.
        return end * math.trunc(size / 100) if self.whole_percents else round(end * size / 100)


def parse_slices(text: str) -> list[Slice]:
    """The slices that ``+`` joins; raises ``ValueError`` for anything that is none."""
    return [_parsed(part.strip()) for part in text.split("+")]


def without_rows(rows: range, taken: Iterable[range]) -> Iterator[range]:
    """What is left of ``rows``, in order, when all ``taken`` rows are left out."""
    start = rows.start
    for gone in sorted(taken, key=lambda one: one.start):
        if start < min(gone.start, rows.stop):
            yield range(start, min(gone.start, rows.stop))
        start = max(start, gone.stop)
    if start < rows.stop:
        yield range(start, rows.stop)


def _parsed(text: str) -> Slice:
    found = _SLICE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no split, such as train, train[:90%] or train[100:200]")
    percent = bool(found["start_percent"] or found["stop_percent"])
    start, stop = (None if found[end] is None else int(found[end]) for end in ("start", "stop"))
    if found["rounding"] and not percent:
        raise ValueError(f"{text!r} rounds no percent")
    if percent and any(abs(end or 0) > _LARGEST_PERCENT for end in (start, stop)):
        raise ValueError(f"{text!r} has more than 100 percent")
    return Slice(found["split"], start, stop, percent, found["rounding"] == "pct1_dropremainder")
