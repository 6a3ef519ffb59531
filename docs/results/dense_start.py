"""What making dense weights sparse costs and what training on brings back: rows of runs, and their table.

    python -m docs.results.dense_start runs/dense-on runs/magnitude ... > docs/results/dense_start.csv

The first run goes on with the dense weights that all of them start from: its loss at step 0 is theirs.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS = (
    "run",
    "criterion",
    "method",
    "density",
    "block",
    "distill_weight",
    "lr",
    "steps",
    "tokens",
    "dense_loss",
    "first_loss",
    "last_loss",
    "eval_tokens",
    "start_digest",
    "device",
    "jax",
)


def rows_of(runs: Sequence[Path]) -> list[dict[str, str]]:
    """One row a finished run directory, the dense one first."""
    rows: list[dict[str, str]] = []
    for run in runs:
        manifest, result = (json.loads((run / name).read_text()) for name in ("config.json", "result.json"))
        config = manifest["config"]
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        first, *_, last = [line for line in lines if line["kind"] == "eval"]
        sparse = config["topology"]["density"] < 1
        rows.append(
            {
                "run": run.name,
                "criterion": config["init"]["criterion"] if sparse else "",
                "method": config["topology"]["method"],
                "density": str(result["density"]),
                "block": "x".join(map(str, config["topology"]["block"])) if sparse else "",
                "distill_weight": str(config["init"]["distill_weight"]),
                "lr": str(config["optim"]["lr"]),
                "steps": str(manifest["steps"]),
                "tokens": str(result["total_tokens"]),
                "dense_loss": str(rows[0]["first_loss"] if rows else first["loss"]),
                "first_loss": str(first["loss"]),
                "last_loss": str(last["loss"]),
                "eval_tokens": str(last["tokens"]),
                "start_digest": manifest["start_digest"][:12],
                "device": result["device"],
                "jax": result["versions"]["jax"],
            }
        )
    return rows


def table_lines(rows: Sequence[Mapping[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells: losses in nats a token, the share of the lost loss that came back, and the first run beside."""
    titles = ["blocks chosen by", "density", "distill weight", "loss before", "right after", "lost"]
    titles += [f"after {rows[0]['steps']} steps", "brought back", "less dense, trained on"]
    lines, goes_on = [], float(rows[0]["last_loss"])
    for row in rows:
        dense, first, last = (float(row[name]) for name in ("dense_loss", "first_loss", "last_loss"))
        lost = first - dense
        back = f"{(first - last) / lost:.0%}" if row["criterion"] else ""
        chosen = row["criterion"] or "(dense, trained on)"
        shown = f"{float(row['density']):.2g}", f"{float(row['distill_weight']):g}", f"{dense:.4f}", f"{first:.4f}"
        beside = [f"{lost:+.4f}", f"{last:.4f}", back, f"{last - goes_on:+.4f}"]
        lines.append([chosen, *shown, *(beside if row["criterion"] else ["", f"{last:.4f}", "", ""])])
    return titles, lines


def read(paths: Sequence[Path]) -> list[dict[str, str]]:
    """The rows of all files."""
    found = []
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            found += list(csv.DictReader(file))
    return found


def main(runs: Sequence[str]) -> None:
    """Write the rows of run directories to stdout."""
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows_of([Path(run) for run in runs]))


if __name__ == "__main__":
    main(sys.argv[1:])
