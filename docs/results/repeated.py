"""Runs on repeated text, configs/scaling/repeated.py: their losses, and what repeating costs beside new text.

``repeated.csv`` is ``sparsejax fit --save-rows``: every field of every ``result.json``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from sparsejax.scaling.csv_table import read_csv
from sparsejax.scaling.result_table import result_of
from sparsejax.scaling.runs import RunResult

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")

COST = "Loss on the smaller text less that on the larger one after as many tokens, nats/token:\n"

Table = tuple[list[str], list[list[str]]]
# Size, realised density, unique tokens, training tokens.
Key = tuple[str, float, int, int]


def read(paths: Sequence[Path]) -> list[RunResult]:
    """The runs of all files."""
    found = []
    for path in paths:
        found += [result_of(record.cells, record.place) for record in read_csv(path).records]
    return found


def by_key(runs: Sequence[RunResult]) -> dict[Key, RunResult]:
    """Each run by what it was; sizes in order of their parameters, densities falling."""
    order = sorted(runs, key=lambda run: (run.total_parameters, -run.density, run.unique_tokens, run.total_tokens))
    return {(run.size, run.density, run.unique_tokens, run.total_tokens): run for run in order}


def loss_table(runs: Sequence[RunResult]) -> Table:
    """A line for each size and density, a column for each text and number of epochs; nats a token."""
    found = by_key(runs)
    lengths = sorted({(unique, total) for _, _, unique, total in found})
    titles = ["size", "density", "active, inner"]
    titles += [f"{_short(unique)} x {total / unique:g}" for unique, total in lengths]
    lines = []
    for size, density in dict.fromkeys((size, density) for size, density, _, _ in found):
        cells = [found.get((size, density, *length)) for length in lengths]
        inner = next(run for run in cells if run is not None).non_embedding_parameters
        losses = ["" if run is None else f"{run.validation_loss:.3f}" for run in cells]
        lines.append([size, f"{density:.3g}", f"{inner:,}", *losses])
    return titles, lines


def cost_table(runs: Sequence[RunResult]) -> Table:
    """Loss on the smallest text less that on the largest after as many tokens: what seeing text again costs."""
    found = by_key(runs)
    few, many = min(key[2] for key in found), max(key[2] for key in found)
    totals = [total for total in sorted({key[3] for key in found if key[2] == many}) if total > few]
    titles = ["size", "density"]
    titles += [f"{_short(total)} tokens, {total / few:g} epochs less {total / many:g}" for total in totals]
    lines = []
    for size, density in dict.fromkeys((size, density) for size, density, _, _ in found):
        cells = []
        for total in totals:
            again, new = found.get((size, density, few, total)), found.get((size, density, many, total))
            known = again is not None and new is not None
            cells.append(f"{again.validation_loss - new.validation_loss:+.3f}" if known else "")
        lines.append([size, f"{density:.3g}", *cells])
    return titles, lines


def draw(runs: Sequence[RunResult]) -> Figure:
    """Loss over epochs of the smallest text, a panel a size and a line a density."""
    found = by_key(runs)
    few = min(key[2] for key in found)
    sizes = list(dict.fromkeys(key[0] for key in found))
    densities = sorted({_asked(key[1]) for key in found}, reverse=True)
    figure = Figure(figsize=(4 * len(sizes), 3.4), layout="constrained")
    for axis, size in zip(figure.subplots(1, len(sizes), squeeze=False, sharey=True)[0], sizes, strict=True):
        for density, colour in zip(densities, COLOURS, strict=False):
            mine = [run for key, run in found.items() if (key[0], _asked(key[1]), key[2]) == (size, density, few)]
            marks = [(run.epochs, run.validation_loss) for run in mine]
            axis.plot(*zip(*sorted(marks), strict=True), "o-", color=colour, lw=1.2, label=f"density {density:g}")
        axis.set_xscale("log", base=2)
        axis.set(title=f"{size}, {_short(few)} unique tokens", xlabel="epochs")
    figure.axes[0].set(ylabel="validation loss (nats/token)")
    figure.axes[0].legend(frameon=False)
    return figure


def _asked(density: float) -> float:
    """The density that was asked for, a power of two; whole blocks make it a little more or less."""
    return float(2.0 ** round(math.log2(density)))


def _short(tokens: int) -> str:
    return f"{tokens / 2**20:g}M" if tokens >= 2**20 else f"{tokens / 2**10:g}k"
