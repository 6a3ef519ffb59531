"""Figures of an evaluation: loss by position, loss by token frequency, reliability. Colours are Okabe and Ito's."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from sparsejax.training.breakdown import CONFIDENCE_BINS, FREQUENCY_LABELS
from sparsejax.training.document_losses import TextEvaluation
from sparsejax.training.evaluation import Study

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

FIGURES = ("positions.png", "calibration.png", "frequencies.png")

Draw = Callable[[Any, TextEvaluation, str, str], None]


def draw_figures(study: Study) -> dict[str, bytes]:
    """Draw the ``FIGURES`` as PNG by name, the last only if frequencies were looked at; an axis for each text."""
    draws: dict[str, Draw] = dict(zip(FIGURES, (_positions, _reliability, _frequencies), strict=True))
    if not any(text.frequencies for run in study.runs for text in run.texts):
        del draws["frequencies.png"]
    return {name: _drawn(study, draw) for name, draw in draws.items()}


def _drawn(study: Study, draw: Draw) -> bytes:
    # Imported here: it costs a second, and only a report draws.
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(text.text for run in study.runs for text in run.texts))
    figure = Figure(figsize=(5.5 * len(names), 4), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        for number, run in enumerate(study.runs):
            for text in run.texts:
                if text.text == name:
                    draw(axis, text, run.name, COLOURS[number % len(COLOURS)])
        axis.set_title(name)
        axis.legend(frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    return png.getvalue()


def _positions(axis: Any, text: TextEvaluation, label: str, colour: str) -> None:
    # From 1, so that a logarithmic axis has a place for the first token.
    axis.plot(np.arange(1, len(text.position_loss) + 1), text.position_loss, color=colour, lw=1, label=label)
    axis.set(xscale="log", xlabel="position in the context, from 1", ylabel="loss (nats/token)")


def _frequencies(axis: Any, text: TextEvaluation, label: str, colour: str) -> None:
    places = [FREQUENCY_LABELS.index(one.label) for one in text.frequencies]
    losses, errors = ([getattr(one.loss, field) for one in text.frequencies] for field in ("value", "error"))
    axis.errorbar(places, losses, yerr=np.nan_to_num(errors), color=colour, marker="o", lw=1, label=label)
    axis.set_xticks(range(len(FREQUENCY_LABELS)), FREQUENCY_LABELS, rotation=30, ha="right")
    axis.set(xlabel="occurrences a million training tokens", ylabel="loss (nats/token), ± standard error")
    axis.set_xlim(-0.5, len(FREQUENCY_LABELS) - 0.5)


def _reliability(axis: Any, text: TextEvaluation, label: str, colour: str) -> None:
    found = text.calibration
    axis.plot([0, 1], [0, 1], color="0.6", lw=1)
    axis.plot(found.confidence, found.accuracy, "o-", color=colour, lw=1, label=f"{label}, error {found.error:.4f}")
    share = np.array(found.tokens) / max(sum(found.tokens), 1)
    axis.bar((np.arange(CONFIDENCE_BINS) + 0.5) / CONFIDENCE_BINS, share, 1 / CONFIDENCE_BINS, color=colour, alpha=0.15)
    axis.set(
        xlabel="confidence of the most likely token",
        ylabel="share correct (bars: share of the tokens)",
        xlim=(0, 1),
        ylim=(0, 1),
    )
