"""What became of a planned run, read from its directory."""

from __future__ import annotations

import dataclasses
import enum
import json
from statistics import median

from sparsejax.config import ConfigError
from sparsejax.planning.plan import PlannedRun
from sparsejax.scaling import runs
from sparsejax.training.metrics import read_rows

# Written by the sweep for a run that left no result.
STATUS = "status.json"


class Status(enum.StrEnum):
    """How far a planned run has come."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"
    OPEN = "open"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one planned run.

    Attributes:
      status: finished, diverged, failed, or open (not begun, or stopped in between).
      reason: one line, if it failed.
      result: its row, if it finished.
      tokens_per_second: median speed of its log intervals, without rewiring, evaluation and saving; 0 without a result.
    """

    status: Status
    reason: str
    result: runs.RunResult | None
    tokens_per_second: float = 0.0

    @property
    def line(self) -> str:
        """For a person: loss and seconds, or what happened instead."""
        if self.result is not None:
            return f"loss {self.result.validation_loss:.4f}, {self.result.seconds:.0f} s"
        return f"{self.status}: {self.reason}" if self.reason else str(self.status)


def outcome_of(run: PlannedRun) -> Outcome:
    """What the run directory says; a result counts more than the failure of an earlier attempt.

    Raises:
      ConfigError: a result or status that cannot be read.
    """
    result, status = run.workdir / "result.json", run.workdir / STATUS
    if result.exists():
        try:
            return Outcome(Status.FINISHED, "", runs.read(result), _speed(run))
        except ValueError as error:
            raise ConfigError(f"{error}; remove {run.workdir} to train this run again") from error
    if not status.exists():
        return Outcome(Status.OPEN, "", None)
    try:
        row = json.loads(status.read_text(encoding="utf-8"))
        return Outcome(Status(row["status"]), row["reason"], None)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{status}: cannot be read ({error}); remove it to try this run again") from error


def _speed(run: PlannedRun) -> float:
    # The median, because the first interval contains compilation.
    rows = read_rows(run.workdir / "metrics.jsonl")
    return median([row["tokens_per_second"] for row in rows if row["kind"] == "train"] or [0.0])


def write_status(run: PlannedRun, status: Status, reason: str) -> None:
    """Record why a run left no result."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    temporary = run.workdir / f".{STATUS}"
    temporary.write_text(json.dumps({"status": status, "reason": reason}) + "\n", encoding="utf-8")
    temporary.replace(run.workdir / STATUS)
