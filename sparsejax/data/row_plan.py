"""The rows of the stream of epochs that each batch of a run takes, by arithmetic alone.

The stream is epoch after epoch of the R rows of a budget. Batches of B rows are cut from it one after the other, and
the one at the end of the run is filled up with padding. A run that was trained to such an end and is then made longer
has used that batch: the next one begins with the next epoch. So every row is seen once an epoch, however often a run
was made longer. Here 10 rows in batches of 8, first for one epoch and then for two, and for two at once:

    first   0 .. 7 | 8 9 and padding | 10 .. 17 | 18 19 and padding
    at once 0 .. 7 | 8 .. 15         | 16 .. 19 and padding
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import NamedTuple


class _Stretch(NamedTuple):
    """Batches from number ``batch`` on, cut from rows ``row`` to ``end`` of the stream."""

    batch: int
    row: int
    end: int


class RowPlan:
    """The rows of every batch.

    Attributes:
      rows: R.
      batch_size: B.
      filled: epochs after which a batch is filled up before the end of the run.
      steps: number of batches.
      stream_rows: rows they take in all, repetitions counted.
    """

    def __init__(self, rows: int, batch_size: int, *, epochs: int, steps: int, filled: Sequence[int]) -> None:
        """Plans a run.

        Args:
          rows: R.
          batch_size: B.
          epochs: whole passes, the last batch is filled up; or 0 if ``steps`` is given.
          steps: number of batches, none is filled up; or 0 if ``epochs`` is given.
          filled: epochs, ascending, after which a batch was filled up too.

        Raises:
          ValueError: not exactly one of ``epochs`` and ``steps`` is positive, or ``filled`` is not below ``epochs``.
        """
        if (epochs > 0) == (steps > 0):
            raise ValueError(f"exactly one of epochs={epochs} and steps={steps} must be positive")
        if filled and (list(filled) != sorted(set(filled)) or not 1 <= filled[0] <= filled[-1] < epochs):
            raise ValueError(f"batches were filled up after epochs {list(filled)}, the run has {epochs}")
        self.rows, self.batch_size, self.filled = rows, batch_size, tuple(filled)
        self._stretches: list[_Stretch] = []
        batch = row = 0
        for end in [*(rows * epoch for epoch in filled), rows * epochs or steps * batch_size]:
            self._stretches.append(_Stretch(batch, row, end))
            batch += -(-(end - row) // batch_size)
            row = end
        self.steps, self.stream_rows = batch, row

    def span(self, batch: int) -> tuple[int, int]:
        """First row of a batch in the stream, and the row its own end at, at most B later."""
        found = self._stretches[bisect.bisect_right(self._stretches, batch, key=lambda each: each.batch) - 1]
        first = found.row + (batch - found.batch) * self.batch_size
        return first, min(first + self.batch_size, found.end)

    def rows_of(self, batches: int) -> int:
        """Rows in the first so many batches, padding left out."""
        return self.span(batches - 1)[1] if batches else 0

    def common_batches(self, other: RowPlan) -> int:
        """Count the first batches that are the same in two plans of one budget and batch size."""
        same = min(self.steps, other.steps)
        # A batch differs where only one of the plans fills it up, which is the last of a stretch.
        ends = [each.batch - 1 for plan in (self, other) for each in plan._stretches[1:]] + [same - 1]
        shared = sorted(batch for batch in ends if 0 <= batch < same)
        return next((batch for batch in shared if self.span(batch) != other.span(batch)), same)
