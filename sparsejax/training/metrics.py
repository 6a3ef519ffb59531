"""The numbers a run writes: ``metrics.jsonl`` and TensorBoard events, one writer for both; process 0 writes.

Every row has ``step`` (optimizer steps done when it was written) and ``kind``: ``train``, ``rewire`` or
``eval``. Times are seconds, losses nats a token, rates tokens a second.

Files in a bucket cannot grow. A run there writes to a directory of process 0's machine, and what that holds is copied
to the bucket whenever the log is flushed: before every checkpoint, and at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sparsejax.files.durable import naming, replace_file
from sparsejax.training.event_file import EventFile
from sparsejax.training.metrics_rows import read_log, read_rows, row_line
from sparsejax.training.workdir import Notice, RunDirectory

__all__ = ["METRICS", "RunLog", "SilentLog", "read_rows", "spike_height"]

METRICS, _BOARD = "metrics.jsonl", "tensorboard"


class SilentLog:
    """The log of a process that writes none.

    Attributes:
      writes: whether this process writes.
      previous_seconds: seconds that the sessions before this one took; known to the process that writes.
      board: directory of this machine for TensorBoard's files; what else is put there is shown too.
    """

    writes = False
    previous_seconds = 0.0
    board = Path(_BOARD)

    def write(self, kind: str, step: int, values: Mapping[str, float | int | list[float]]) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


class RunLog(SilentLog):
    """Writes rows; a resumed run first removes the rows past the step it continues from."""

    writes = True

    def __init__(self, workdir: RunDirectory, start_step: int, notice: Notice = print) -> None:
        """Open the log of a run.

        Args:
          workdir: the run directory.
          start_step: the run continues after it.
          notice: told of rows that are not what was written; they are left out.
        """
        self._remote = None if isinstance(workdir, Path) else workdir
        self._stack = contextlib.ExitStack()
        if isinstance(workdir, Path):
            local = workdir
        else:
            local = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sparsejax-log-")))
        self._local, self._path, self.board = local, local / METRICS, local / _BOARD
        log = read_log(workdir / METRICS)
        for number in log.damaged:
            notice(f"{workdir / METRICS}: line {number} is not what was written; it is left out")
        kept = [(row, line) for row, line in zip(log.rows, log.lines, strict=True) if row["step"] <= start_step]
        replace_file(self._path, "".join(f"{line}\n" for _, line in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._board = EventFile(self.board, start_step)
        self._written = {(row["kind"], row["step"]) for row, _ in kept}
        self.previous_seconds = max((row["seconds"] for row, _ in kept if "seconds" in row), default=0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The first error is told; on a full disk closing fails again.
        with contextlib.suppress(OSError) if error is not None else contextlib.nullcontext(), self._stack:
            try:
                with naming(self._path):
                    self._file.close()
            finally:
                self._board.close()
            self._copy()

    def write(self, kind: str, step: int, values: Mapping[str, float | int | list[float]]) -> None:
        """Append one row; scalars also become TensorBoard points ``kind/name`` (names with '/' as they are).

        A row of this kind and step that is there already stays as it is: a finished run only reports again.
        """
        if (kind, step) in self._written:
            return
        self._written.add((kind, step))
        with naming(self._path):
            self._file.write(row_line({"step": step, "kind": kind, **values}) + "\n")
            self._file.flush()
        for name, value in values.items():
            if not isinstance(value, list):
                self._board.add(name if "/" in name else f"{kind}/{name}", value, step)
        self._board.flush()

    def flush(self) -> None:
        """Bring everything written so far onto the disk."""
        with naming(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._copy()

    def _copy(self) -> None:
        """Put everything of the local directory into the bucket."""
        if self._remote is None:
            return
        for path in self._local.rglob("*"):
            if path.is_file():
                target = self._remote / path.relative_to(self._local)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())


def spike_height(rows: Iterable[Mapping[str, Any]]) -> float:
    """Largest rise of the training loss over the mean of the log interval before it, in nats a token.

    For train rows i with the mean and maximum loss of their interval: ``max_i (max_i - mean_(i-1))``, at least 0.
    Intervals with a loss that is not finite are left out: the step was skipped, and ``skipped`` counts it.
    """
    train = [row for row in rows if row["kind"] == "train" and math.isfinite(row["loss_mean"] + row["loss_max"])]
    rises = (after["loss_max"] - before["loss_mean"] for before, after in itertools.pairwise(train))
    return max(0.0, max(rises, default=0.0))
