"""Tables and the CSV file of ``drift``."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence

from rich import box
from rich.table import Table

from sparsejax.training.drift import Measure


def drift_table(rows: Sequence[Measure], tolerance: float) -> Table:
    """One line per run and kind of weight."""
    table = _table(f"from the first weights to now (unmoved: by less than {tolerance:g})")
    for column in ("run", "weight", "unmoved", "mask kept", "places changed", "rank of change"):
        table.add_column(column, justify="left" if column in ("run", "weight") else "right")
    for (run, _, weight), values in _by_line(rows).items():
        rank = f"{values['rank_share']:.3f}" if "rank_share" in values else "-"
        changed = f"{values['mask_distance']:,.0f}"
        table.add_row(run, weight, f"{values['unmoved']:.4f}", f"{values['initial_overlap']:.4f}", changed, rank)
    return table


def agreement_table(rows: Sequence[Measure]) -> Table:
    """One line per pair of runs and kind of weight."""
    table = _table("overlap of masks")
    for column in ("run", "other", "weight", "overlap", "by chance"):
        table.add_column(column, justify="right" if column in ("overlap", "by chance") else "left")
    for (run, other, weight), values in _by_line(rows).items():
        table.add_row(run, other, weight, f"{values['overlap']:.4f}", f"{values['overlap_by_chance']:.4f}")
    return table


def csv_text(rows: Sequence[Measure]) -> str:
    """A CSV table, one line per number: run, other, weight, measure, value."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(Measure)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in rows)
    return text.getvalue()


def _by_line(rows: Sequence[Measure]) -> dict[tuple[str, str, str], dict[str, float]]:
    lines: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        lines.setdefault((row.run, row.other, row.weight), {})[row.measure] = row.value
    return lines


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left")
