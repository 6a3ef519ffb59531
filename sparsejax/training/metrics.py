"""The numbers a run writes: ``metrics.jsonl`` and TensorBoard events, one writer for both; process 0 writes.

Every row has ``step`` (optimizer steps done when it was written) and ``kind``: ``train``, ``rewire`` or
``eval``. Times are seconds, losses nats a token, rates tokens a second.

Files in a bucket cannot grow. A run there writes to a directory of process 0's machine, and what that holds is copied
to the bucket whenever the log is flushed: before every checkpoint, and at the end.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboardX import SummaryWriter

from sparsejax.training.workdir import RunDirectory

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

    def __init__(self, workdir: RunDirectory, start_step: int) -> None:
        """Open the log of ``workdir`` for a run that continues after ``start_step``."""
        self._remote = None if isinstance(workdir, Path) else workdir
        local = workdir if isinstance(workdir, Path) else Path(tempfile.mkdtemp(prefix="sparsejax-log-"))
        self._local, self._path, self.board = local, local / METRICS, local / _BOARD
        kept = [row for row in read_rows(workdir / METRICS) if row["step"] <= start_step]
        temporary = self._path.with_suffix(".jsonl.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self._file = self._path.open("a", encoding="utf-8")
        # The suffix keeps a session's file apart from that of another in the bucket, started in the same second.
        self._board = SummaryWriter(
            str(self.board), purge_step=start_step + 1, flush_secs=20, filename_suffix=f".{start_step}"
        )
        self._written = {(row["kind"], row["step"]) for row in kept}
        self.previous_seconds = max((row["seconds"] for row in kept if "seconds" in row), default=0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()
        self._copy()

    def write(self, kind: str, step: int, values: Mapping[str, float | int | list[float]]) -> None:
        """Append one row; scalars also become TensorBoard points ``kind/name`` (names with '/' as they are).

        A row of this kind and step that is there already stays as it is: a finished run only reports again.
        """
        if (kind, step) in self._written:
            return
        self._written.add((kind, step))
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if not isinstance(value, list):
                self._board.add_scalar(name if "/" in name else f"{kind}/{name}", value, step)

    def flush(self) -> None:
        """Bring everything written so far onto the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._board.flush()
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


def read_rows(path: RunDirectory) -> list[dict[str, Any]]:
    """All complete rows of a ``metrics.jsonl``; a torn last line (the process was killed) is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def spike_height(rows: Iterable[Mapping[str, Any]]) -> float:
    """Largest rise of the training loss over the mean of the log interval before it, in nats a token.

    For train rows i with the mean and maximum loss of their interval: ``max_i (max_i - mean_(i-1))``, at least 0.
    """
    train = [row for row in rows if row["kind"] == "train"]
    rises = (after["loss_max"] - before["loss_mean"] for before, after in itertools.pairwise(train))
    return max(0.0, max(rises, default=0.0))
