"""The tables and figures of docs/RESULTS.md, from the CSV files beside this script: ``make results``.

Two kinds of file are read: ``runs.csv`` of ``sparsejax sweep``, one row a run, and the rows of ``sparsejax branch``.
A section ``name`` of RESULTS.md stands between ``<!-- results:name -->`` and ``<!-- /results:name -->`` and is made
from ``name.csv`` and all ``name-*.csv``; without such a file it is empty. Sentences outside the markers are written by
hand and never touched. Every ± is a standard error over seeds; differences are paired by seed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from docs.results import dense_start, repeated
from sparsejax.training.branch_rows import FORMS, BranchRow, Estimate, Summary, estimate, mean_of_first, peak, summarise
from sparsejax.training.branch_rows import read_rows as read_branch_rows

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "RESULTS.md"
MARKED = re.compile(r"<!-- results:(?P<name>[a-z_]+) -->\n.*?<!-- /results:(?P=name) -->", re.DOTALL)
# Steps after a rewiring that the branch test averages; a naive first update is largest about the twelfth.
WINDOW = 20

TITLES = {
    "branch": "What a rewiring costs: drop damage and cold start",
    "branch_fade": "Fading blocks out before they are dropped: what a rewiring costs",
    "methods_lr": "Learning rate of each method",
    "methods": "Final losses of the core methods",
    "cold_start": "Remedies for the cold start",
    "block_size": "Block size against loss and speed",
    "density_lr": "Density exponent of the learning rate",
    "drop_fade": "Fading blocks out before they are dropped: final losses",
    "drop_rule": "Drop rules",
    "grow_rule": "Growth rules",
    "update_frequency": "Steps between rewirings",
    "prune_rate_schedule": "Schedules of the replaced share",
    "warmup_length": "Length of the ramp",
    "balance": "Balanced columns and shares",
    "allocation": "Density per weight",
    "attention_mlp_ratio": "Attention against MLP density",
    "density": "Density",
    "density_epochs": "Density under repeated data",
    "weight_decay_repetition": "Weight decay under repeated data",
    "baselines": "Baselines",
    "dense_start": "Starting from dense weights",
    "repeated": "Repeated text at four densities",
}

Run = Mapping[str, str]
Points = dict[str, list[Run]]


def render(text: str, directory: Path) -> str:
    """``text`` with every marked section made anew from the files in ``directory``."""

    def section(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- results:{name} -->\n{content(name, directory)}<!-- /results:{name} -->"

    return MARKED.sub(section, text)


def content(name: str, directory: Path) -> str:
    """The Markdown of one section; empty if there is no file of it."""
    paths = files_of(name, directory)
    if not paths:
        return ""
    if name == "dense_start":
        tables = [table(*dense_start.table_lines(dense_start.read(paths)))]
    elif name == "repeated":
        found = repeated.read(paths)
        tables = [table(*repeated.loss_table(found)), repeated.COST, table(*repeated.cost_table(found))]
    elif name.startswith("branch"):
        tables = branch_tables(read_branches(paths))
    else:
        tables = run_tables(name, read_points(paths))
    figure = f"\n![{name}](results/{name}.svg)\n" if (directory / f"{name}.svg").exists() else ""
    title = TITLES[name] if name in TITLES else name
    return f"\n## {title}\n\n" + "\n".join(tables) + figure + "\n"


def files_of(name: str, directory: Path) -> list[Path]:
    """``name.csv`` and ``name-*.csv``, those that exist."""
    return [path for path in (directory / f"{name}.csv", *sorted(directory.glob(f"{name}-*.csv"))) if path.exists()]


def read_branches(paths: Sequence[Path]) -> list[BranchRow]:
    """The rows of the branch test, of all files together."""
    return [row for path in paths for row in read_branch_rows(path)]


def read_points(paths: Sequence[Path]) -> Points:
    """The finished runs of each point, in the order of the file."""
    points: Points = {}
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["status"] == "finished":
                    points.setdefault(row["point"], []).append(row)
    return points


def column(runs: Sequence[Run], name: str) -> Estimate:
    """Mean of a column over the runs of a point."""
    return estimate([float(run[name]) for run in runs])


def paired(runs: Sequence[Run], reference: Sequence[Run]) -> Estimate | None:
    """Mean loss less that of the reference with the same seed; None without a common seed, or against itself."""
    by_seed = {run["seed"]: float(run["validation_loss"]) for run in reference}
    found = [float(run["validation_loss"]) - by_seed[run["seed"]] for run in runs if run["seed"] in by_seed]
    return estimate(found) if found and runs is not reference else None


def run_tables(name: str, points: Points) -> list[str]:
    """One table: a line per point with its settings, loss, paired differences, rise of the loss, and speed."""
    references: dict[str, Sequence[Run]] = {"first line": next(iter(points.values()))}
    if name == "methods":
        first = {
            method: [run for run in points.values() if run[0]["method"] == method] for method in ("static", "smet")
        }
        references = {method: found[0] for method, found in first.items() if found}
    settings = list(dict.fromkeys(key for runs in points.values() for key in runs[0] if "." in key))
    titles = [key.partition(".")[2] for key in settings]
    titles += [
        "seeds",
        "loss (nats/token)",
        *(f"less {name}" for name in references),
        "largest rise",
        "seconds",
        "tokens/s",
    ]
    lines = []
    for runs in points.values():
        differences = [paired(runs, reference) for reference in references.values()]
        lines.append(
            [
                *(runs[0][key] for key in settings),
                str(len(runs)),
                shown(column(runs, "validation_loss")),
                *(shown(found, signed=True) if found is not None else "" for found in differences),
                shown(column(runs, "loss_spike"), digits=3),
                shown(column(runs, "seconds"), digits=1),
                shown(column(runs, "tokens_per_second"), digits=0),
            ]
        )
    return [table(titles, lines)]


def branch_tables(rows: Sequence[BranchRow]) -> list[str]:
    """Two tables: mean over the first steps after a rewiring, and peak."""
    tables = []
    for title, reduce in ((f"Mean over the first {WINDOW} steps", mean_of_first(WINDOW)), ("Highest step", peak)):
        found = summarise(rows, reduce)
        tables.append(f"{title} after a rewiring, nats/token:\n\n" + _branch_table(found))
    return tables


def _branch_table(found: Sequence[Summary]) -> str:
    names = ("method", "block", "density", "b2", "fade_steps", "saturate")
    titles = [name.replace("_", " ") for name in names]
    titles += ["seeds", "rewirings", "drop damage", *(f"cold start {form}" for form in FORMS), "smet/naive"]
    lines = [
        [
            *(str(getattr(summary.setting, name)) for name in names),
            str(summary.seeds),
            str(summary.rewirings),
            shown(summary.drop_damage["smet"], signed=True),
            *(shown(summary.cold_start[form], signed=True) for form in FORMS),
            "-" if summary.smet_over_naive is None else shown(summary.smet_over_naive, digits=3),
        ]
        for summary in found
    ]
    return table(titles, lines)


def shown(found: Estimate, digits: int = 4, signed: bool = False) -> str:
    """``mean ± error``; a mean of one seed stands alone."""
    mean = f"{found.mean:+.{digits}f}" if signed else f"{found.mean:.{digits}f}"
    return mean if found.error is None else f"{mean} ± {found.error:.{digits}f}"


def table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table without columns that are empty in every line."""
    kept = [i for i in range(len(titles)) if any(line[i] for line in lines)]
    rows = [[titles[i] for i in kept], ["---"] * len(kept), *([line[i] for i in kept] for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Draw the figures, then rewrite the marked sections of RESULTS.md."""
    from docs.results.figures import FIGURES

    text = RESULTS.read_text(encoding="utf-8")
    for name in (match["name"] for match in MARKED.finditer(text)):
        draw: Callable[[Sequence[Path], Path], None] | None = FIGURES.get(name)
        paths = files_of(name, HERE)
        if draw is not None and paths:
            draw(paths, HERE / f"{name}.svg")
    RESULTS.write_text(render(text, HERE), encoding="utf-8")


if __name__ == "__main__":
    main()
