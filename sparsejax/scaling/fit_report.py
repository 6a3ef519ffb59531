"""A fit in writing: ``fit.json`` for the other commands, ``report.md`` for people, a figure of the residuals.

A parameter is identified where bootstrap and profile interval together cover less than ``intervals.FACTOR``. For a
coefficient that is asked of its whole term at the geometric middle of the runs, which no unit changes. What is not
identified is printed with the value at the minimum and is marked.
"""

from __future__ import annotations

import dataclasses
import io
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from sparsejax import __version__
from sparsejax.files.outputs import OutputFiles
from sparsejax.scaling.fit import Fit
from sparsejax.scaling.held_out import Comparison, HeldOut
from sparsejax.scaling.intervals import Bootstrap, Diagnostics, Interval
from sparsejax.scaling.saved_fit import SCHEMA, json_text

FILES = ("fit.json", "report.md", "residuals.png")
# Refits kept in fit.json: enough for the 90 % ends of a decision.
_KEPT_SAMPLES = 200
_ANOTHER_MINIMUM = 1.01
_LIBRARIES = ("jax", "jaxlib", "numpy", "scipy")


@dataclasses.dataclass(frozen=True)
class Term:
    """A coefficient times its powers at the geometric middle of the runs, and both intervals of it.

    Attributes:
      at: the middle, by column.
      value: of the term.
      bootstrap: interval.
      profile: interval.
    """

    at: Mapping[str, float]
    value: float
    bootstrap: Interval
    profile: Interval


@dataclasses.dataclass(frozen=True)
class Certainty:
    """Both intervals of a parameter, and of its term if it is a coefficient."""

    bootstrap: Interval
    profile: Interval
    term: Term | None = None

    @property
    def together(self) -> Interval:
        """From the lower of the low ends to the higher of the high ends, of the term if there is one."""
        judged = self if self.term is None else self.term
        return Interval(min(judged.bootstrap.low, judged.profile.low), max(judged.bootstrap.high, judged.profile.high))


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """Everything a report says.

    Attributes:
      fit: the fit.
      bootstrap: its refits.
      certainty: by free parameter.
      level: of the intervals.
      diagnostics: condition, correlations, noise.
      held_out: errors on runs left out.
      comparison: with other laws; None without.
      command: how it was made.
    """

    fit: Fit
    bootstrap: Bootstrap
    certainty: Mapping[str, Certainty]
    level: float
    diagnostics: Diagnostics
    held_out: Sequence[HeldOut]
    comparison: Comparison | None
    command: str


def write_report(found: Findings, out: OutputFiles) -> None:
    """Write the ``FILES``."""
    report = "\n".join(report_lines(found)) + "\n"
    contents = (json_text(document(found)), report, residual_plot(found.fit))
    out.write(dict(zip(FILES, contents, strict=True)))


def document(found: Findings) -> dict[str, Any]:
    """The content of ``fit.json``; ``saved_fit.read`` reads it."""
    fit, table = found.fit, found.fit.table
    keep = np.linspace(0, len(found.bootstrap.z) - 1, min(_KEPT_SAMPLES, len(found.bootstrap.z))).astype(int)
    pairs = found.certainty.items()
    columns = {**table.columns, "epochs": table.columns["D"] / table.columns["U"]}
    return {
        "schema": SCHEMA,
        "law": fit.law.name,
        "residual": fit.law.residual,
        "equation": fit.law.equation,
        "values": dict(fit.values),
        "free": list(fit.free),
        "level": found.level,
        "intervals": {name: _ends(one) | {"identified": one.together.identified} for name, one in pairs},
        "terms": {
            name: {"at": dict(one.term.at), "value": one.term.value, **_ends(one.term)}
            for name, one in pairs
            if one.term is not None
        },
        "objective": fit.objective,
        "delta": fit.delta,
        "scale": fit.scale,
        "r2": fit.r2,
        "starts": fit.starts,
        "agreement": fit.agreement,
        "minima": [dataclasses.asdict(one) for one in fit.minima[:5]],
        "condition": found.diagnostics.condition,
        "correlations": [[*pair, value] for pair, value in found.diagnostics.correlations.items()],
        "seed_scale": found.diagnostics.seed_scale,
        "held_out": [dataclasses.asdict(one) for one in found.held_out],
        "comparison": None if found.comparison is None else dataclasses.asdict(found.comparison),
        "convention": table.convention,
        "tokens_in": table.tokens_in,
        "tokenizer": table.tokenizer,
        "text": table.text,
        "notes": list(table.notes),
        "runs": len(table),
        "source": table.source,
        "digest": table.digest,
        "ranges": {name: [float(column.min()), float(column.max())] for name, column in columns.items()},
        "samples": {name: values[keep].tolist() for name, values in found.bootstrap.values.items()},
        "command": found.command,
        "versions": {"sparsejax": __version__, "python": platform.python_version()}
        | {name: version(name) for name in _LIBRARIES},
    }


def report_lines(found: Findings) -> list[str]:
    """The report, in Markdown."""
    fit = found.fit
    lines = [
        f"# {fit.law.name}: {len(fit.table)} runs of {fit.table.source}",
        "",
        *(line.strip() for line in fit.law.equation.splitlines()),
        "",
        f"N counts {fit.table.convention.replace('_', ' ')} parameters. Made by `{found.command}`,",
        f"data sha256 {fit.table.digest[:16]}.",
        "",
        *(f"NOTE: {note}." for note in fit.table.notes),
        *([""] if fit.table.notes else []),
        f"Intervals are of {found.level:.0%}; the bootstrap draws from {found.bootstrap.groups} groups of runs.",
        "",
        "| parameter | estimate | bootstrap | profile |",
        "|---|---|---|---|",
    ]
    lines += [row for name in fit.law.names for row in _rows(found, name)]
    lines += ["", *_quality(found)]
    warnings = _warnings(found)
    if warnings:
        lines += ["", "## Warnings", "", *(f"- {text}" for text in warnings)]
    return lines


def _rows(found: Findings, name: str) -> list[str]:
    value = found.fit.values[name]
    if name not in found.certainty:
        return [f"| {name} | {value:.6g} | fixed | fixed |"]
    one = found.certainty[name]
    mark = "" if one.together.identified else f" ({_unidentified(one.together)})"
    rows = [f"| {name} | {value:.4g}{mark} | {_shown(one.bootstrap)} | {_shown(one.profile)} |"]
    if one.term is not None:
        at = ", ".join(f"{column} = {middle:.3g}" for column, middle in one.term.at.items())
        ends = f"{_shown(one.term.bootstrap)} | {_shown(one.term.profile)}"
        rows.append(f"| {name} with its powers at {at} | {one.term.value:.4g} | {ends} |")
    return rows


def _unidentified(interval: Interval) -> str:
    crosses = interval.low < 0 < interval.high and math.isfinite(interval.low + interval.high)
    return "not told from 0" if crosses else "not identified"


def _shown(interval: Interval) -> str:
    ends = [f"{end:.3g}" if math.isfinite(end) else "unbounded" for end in (interval.low, interval.high)]
    return f"{ends[0]} to {ends[1]}"


def _quality(found: Findings) -> list[str]:
    fit, told = found.fit, found.diagnostics
    lines = [
        "| what | value |",
        "|---|---|",
        f"| objective (sum of Huber losses, delta {fit.delta:.3g}) | {fit.objective:.10g} |",
        f"| R^2 of the loss, fitted runs | {fit.r2:.4f} |",
        f"| robust scale of the residuals, {fit.law.residual_unit} | {fit.scale:.4f} |",
        f"| scale between seeds | {'no repeats' if told.seed_scale is None else f'{told.seed_scale:.4f}'} |",
        f"| starts that agree on the best minimum | {fit.agreement:.0%} of {fit.starts} |",
        f"| condition of the Jacobian, centred and scaled | {told.condition:.3g} |",
    ]
    lines += [
        f"| mean error on runs left out: {one.split} ({one.runs}) | {_error(fit, one.error)}, "
        f"bias {_error(fit, one.bias, '+')} |"
        for one in found.held_out
    ]
    if found.comparison is not None:
        splits = list(next(iter(found.comparison.errors.values())))
        lines += ["", f"| law | objective | {' | '.join(f'error: {split}' for split in splits)} |"]
        lines += ["|---" * (2 + len(splits)) + "|"]
        for name, objective in found.comparison.objectives.items():
            errors = found.comparison.errors[name]
            cells = [_error(fit, errors[split]) if split in errors else "-" for split in splits]
            lines.append(f"| {name} | {objective:.6g} | {' | '.join(cells)} |")
    return lines


def _error(fit: Fit, value: float, sign: str = "") -> str:
    return f"{value:{sign}.2%}" if fit.law.residual == "log" else f"{value:{sign}.4f} nats/token"


def _warnings(found: Findings) -> list[str]:
    fit, told = found.fit, found.diagnostics
    texts = []
    for name, one in found.certainty.items():
        if not one.together.identified:
            texts.append(f"{name} is {_unidentified(one.together)}: {_shown(one.together)} fit alike")
    rivals = [one for one in fit.minima[1:] if one.objective < fit.objective * _ANOTHER_MINIMUM]
    for rival in rivals[:3]:
        shown = ", ".join(f"{name} {rival.values[name]:.4g}" for name in fit.free)
        texts.append(f"another minimum is {rival.objective / fit.objective - 1:.3%} higher: {shown}")
    if fit.agreement < 0.1:
        texts.append(f"only {fit.agreement:.0%} of the starts agree: a better minimum may exist; give more --starts")
    if told.misspecified:
        texts.append("residuals are over three times the noise of seeds: the law misses the runs, which is not luck")
    if told.correlations:
        pairs = ", ".join(f"{one} and {other} ({value:+.3f})" for (one, other), value in told.correlations.items())
        texts.append(f"estimates that move together: {pairs}")
    if found.comparison is not None and found.comparison.warning:
        texts.append(found.comparison.warning)
    return texts


def _ends(one: Certainty | Term) -> dict[str, Any]:
    return {"bootstrap": [one.bootstrap.low, one.bootstrap.high], "profile": [one.profile.low, one.profile.high]}


def residual_plot(fit: Fit) -> bytes:
    """A PNG: residuals against every column of the law and the prediction; structure in one is what a law misses."""
    from matplotlib.figure import Figure

    labels = {"N": "parameters", "D": "training tokens", "U": "unique tokens", "S": "density", "X": "experts"}
    axes = {name: fit.problem.columns[name] for name in fit.law.columns} | {"predicted": fit.predicted}
    figure = Figure(figsize=(3.2 * len(axes), 3.0), layout="constrained")
    for panel, (name, column) in zip(
        np.atleast_1d(figure.subplots(1, len(axes), sharey=True)), axes.items(), strict=True
    ):
        panel.axhline(0, color="0.6", linewidth=1)
        # Blue of the Okabe-Ito palette, which colour-blind readers can tell from black and grey.
        panel.plot(column, fit.residuals, "o", color="#0072B2", markersize=3, alpha=0.6)
        panel.set_xlabel("predicted loss (nats/token)" if name == "predicted" else labels.get(name, name))
        if np.all(column > 0) and column.max() > 5 * column.min():
            panel.set_xscale("log")
    figure.axes[0].set_ylabel(fit.law.residual_label)
    figure.suptitle(f"{fit.law.name}: residuals of {len(fit.table)} runs")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()
