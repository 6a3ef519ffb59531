"""The table that ``sparsejax branch`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from sparsejax.training.branch_rows import FORMS, BranchRow, mean_of_first, peak, summarise


def branch_table(rows: Sequence[BranchRow]) -> Table:
    """Drop damage and cold start by form, mean over all steps and highest step, averaged over the rewirings."""
    steps = max(row.step for row in rows)
    (mean,) = summarise(rows, mean_of_first(steps))
    (highest,) = summarise(rows, peak)
    table = Table(
        title=f"excess loss after {mean.rewirings} rewirings, nats/token",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title_justify="left",
    )
    for column in ("", f"mean of {steps} steps", "highest step"):
        table.add_column(column, justify="right" if column else "left")
    for title, parts in (("drop damage", "drop_damage"), ("cold start", "cold_start")):
        for form in FORMS:
            values = (getattr(summary, parts)[form].mean for summary in (mean, highest))
            table.add_row(f"{title}, {form}", *(f"{value:+.5f}" for value in values))
    return table
