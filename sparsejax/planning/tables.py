"""The tables of a sweep: one row a run, and one row a point with means, errors and the paired difference.

A standard error is the sample standard deviation over the square root of the number of values, and needs two of them.
The paired difference of a point is the mean over seeds of its loss minus the first point's loss of the same seed: what
both share, first draw and order of the data, cancels.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from sparsejax.planning.outcomes import Outcome, Status, outcome_of
from sparsejax.planning.plan import PlannedRun

Row = dict[str, Any]

FILES = ("runs.csv", "summary.csv")

# Fields of RunResult that runs.csv shows, in this order.
RESULT_COLUMNS = (
    "method",
    "density",
    "peak_lr",
    "validation_loss",
    "bits_per_byte",
    "train_loss",
    "loss_spike",
    "seconds",
    "active_parameters",
    "total_parameters",
    "unique_tokens",
    "total_tokens",
    "epochs",
    "steps",
    "executed_flops",
    "theoretical_flops",
    "started_from",
    "device",
)
# Beside seconds, which contain compilation, and evaluation.
SPEED = "tokens_per_second"
# Means over the finished runs of a point.
MEAN_COLUMNS = ("bits_per_byte", "loss_spike", "seconds", SPEED, "active_parameters", "total_parameters", "density")


def collect(runs: Sequence[PlannedRun]) -> dict[str, str | bytes]:
    """The ``FILES`` as text, from what the run directories hold now."""
    found = run_rows(runs, [outcome_of(run) for run in runs])
    return dict(zip(FILES, map(csv_text, (found, summary_rows(found, varied(runs)))), strict=True))


def varied(runs: Sequence[PlannedRun]) -> tuple[str, ...]:
    """Every ``section.field`` that some point sets, in order of appearance."""
    return tuple(dict.fromkeys(key for run in runs for key in run.point.settings))


def run_rows(runs: Sequence[PlannedRun], outcomes: Sequence[Outcome]) -> list[Row]:
    """One row a run, seeds of a point together; a setting that a point leaves alone shows its resolved value."""
    keys, order = varied(runs), list(dict.fromkeys(run.point.name for run in runs))
    rows = []
    pairs = sorted(zip(runs, outcomes, strict=True), key=lambda pair: (order.index(pair[0].point.name), pair[0].seed))
    for run, outcome in pairs:
        config, result = run.config.to_dict(), outcome.result
        row: Row = {"point": run.point.name}
        row |= {key: _cell(config[key.partition(".")[0]][key.partition(".")[2]]) for key in keys}
        row |= {"seed": run.seed, "status": str(outcome.status)}
        row |= {name: "" if result is None else getattr(result, name) for name in RESULT_COLUMNS}
        row |= {SPEED: "" if result is None else outcome.tokens_per_second}
        rows.append(row | {"reason": outcome.reason})
    return rows


def summary_rows(rows: Sequence[Row], settings: Sequence[str]) -> list[Row]:
    """One row a point of ``run_rows``: numbers of runs, mean loss, and the paired difference to the first point."""
    points: dict[str, list[Row]] = {}
    for row in rows:
        points.setdefault(row["point"], []).append(row)
    losses = {name: _losses(group) for name, group in points.items()}
    first = next(iter(losses.values()), {})
    summary = []
    for name, group in points.items():
        finished = [row for row in group if row["status"] == Status.FINISHED]
        row = {"point": name} | {key: group[0][key] for key in settings}
        row |= {status.value: sum(run["status"] == status for run in group) for status in Status}
        values = list(losses[name].values())
        row |= {"validation_loss": _mean(values), "standard_error": standard_error(values)}
        row |= {column: _mean([run[column] for run in finished]) for column in MEAN_COLUMNS}
        common = [] if losses[name] is first else [seed for seed in losses[name] if seed in first]
        paired = [losses[name][seed] - first[seed] for seed in common]
        row |= {"common_seeds": len(paired), "difference": _mean(paired)}
        summary.append(row | {"difference_standard_error": standard_error(paired)})
    return summary


def standard_error(values: Sequence[float]) -> float | str:
    """Of the mean; empty below two values."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else ""


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal columns as CSV; floats keep all their digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _losses(rows: Sequence[Row]) -> dict[int, float]:
    return {row["seed"]: row["validation_loss"] for row in rows if row["status"] == Status.FINISHED}


def _mean(values: Sequence[float]) -> float | str:
    return fmean(values) if values else ""


def _cell(value: Any) -> Any:
    return "x".join(map(str, value)) if isinstance(value, tuple) else value
