"""The figures of docs/RESULTS.md as SVG files that are equal byte for byte if the numbers are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from docs.results import repeated
from docs.results.tables import column, read_branches, read_points
from sparsejax.training.branch_rows import mean_curve

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Branches drawn: (form, change, label).
DRAWN = (
    ("smet", "drop", "drop only"),
    ("naive", "rewire", "rewired, naive"),
    ("smet_code", "rewire", "rewired, smet_code"),
    ("smet", "rewire", "rewired, smet"),
)


def draw_branches(paths: Sequence[Path], out: Path) -> None:
    """Mean excess over steps after the rewiring, one panel a setting."""
    rows = read_branches(paths)
    settings = list(dict.fromkeys(row.setting for row in rows))
    figure = Figure(figsize=(4 * len(settings), 3.2), layout="constrained")
    for axis, setting in zip(figure.subplots(1, len(settings), squeeze=False)[0], settings, strict=True):
        mine = [row for row in rows if row.setting == setting]
        for colour, (form, change, label) in zip(COLOURS, DRAWN, strict=False):
            curve = mean_curve(mine, form, change)
            axis.plot(range(1, len(curve) + 1), curve, color=colour, lw=1.2, label=label)
        axis.axhline(0.0, color="#666666", lw=0.5)
        axis.set(
            title=f"block {setting.block}, fade {setting.fade_steps}, +{setting.saturate} updates",
            xlabel="steps after the rewiring",
            ylabel="excess (nats/token)",
        )
    figure.axes[0].legend(frameon=False)
    _save(figure, out)


def draw_block_size(paths: Sequence[Path], out: Path) -> None:
    """Loss over training speed, one mark a block."""
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axis = figure.subplots()
    for colour, (point, runs) in zip(COLOURS, read_points(paths).items(), strict=False):
        loss, speed = column(runs, "validation_loss"), column(runs, "tokens_per_second")
        axis.errorbar(
            speed.mean, loss.mean, xerr=speed.error or 0, yerr=loss.error or 0, fmt="o", color=colour, label=point
        )
    axis.set(xlabel="tokens per second", ylabel="validation loss (nats/token)")
    axis.legend(frameon=False)
    _save(figure, out)


def draw_density_lr(paths: Sequence[Path], out: Path) -> None:
    """Loss over density, one line an exponent."""
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for runs in read_points(paths).values():
        loss, first = column(runs, "validation_loss"), runs[0]
        mark = (float(first["topology.density"]), loss.mean, loss.error or 0.0)
        lines.setdefault(first["optim.density_exponent"], []).append(mark)
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axis = figure.subplots()
    for colour, (exponent, marks) in zip(COLOURS, lines.items(), strict=False):
        densities, losses, errors = zip(*sorted(marks), strict=True)
        axis.errorbar(densities, losses, yerr=errors, fmt="o-", color=colour, lw=1, label=f"exponent {exponent}")
    axis.set_xscale("log", base=2)
    axis.set(xlabel="density", ylabel="validation loss (nats/token)")
    axis.legend(frameon=False)
    _save(figure, out)


def draw_repeated(paths: Sequence[Path], out: Path) -> None:
    """Loss over epochs, a panel a size."""
    _save(repeated.draw(repeated.read(paths)), out)


def _save(figure: Figure, out: Path) -> None:
    # Without salt and date the same numbers would give another file every time.
    with matplotlib.rc_context({"svg.hashsalt": "sparsejax", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})


FIGURES: Mapping[str, Callable[[Sequence[Path], Path], None]] = {
    "branch": draw_branches,
    "branch_fade": draw_branches,
    "block_size": draw_block_size,
    "density_lr": draw_density_lr,
    "repeated": draw_repeated,
}
