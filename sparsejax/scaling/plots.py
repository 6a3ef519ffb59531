"""Curves of a law, one message each, drawn into axes that the caller makes. Colours are Okabe and Ito's (2008).

An optimum is a filled star; where it lies on the edge of the search, so that it is none, the star is hollow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparsejax.scaling.frontier import Budget, Choice, best_at_density, iso_flop, iso_loss, predicted
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.rows import Table

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plot_iso_flops(
    axes: Any, law: Law, values: Mapping[str, float], budget: Budget, flops: Sequence[float], density: float
) -> None:
    """Loss by size for each FLOP budget, the optimum marked."""
    for C, colour in zip(flops, COLOURS, strict=False):
        spent = dataclasses.replace(budget, flops=C)
        choice = best_at_density(law, values, spent, density)
        N = choice.parameters * np.geomspace(0.1, 10, 120)
        axes.plot(N, iso_flop(law, values, spent, density, N), color=colour, label=f"{C:.0e} FLOPs")
        _star(axes, choice.parameters, choice.loss, choice, colour)
    axes.set(xscale="log", xlabel="parameters", ylabel="loss (nats/token)")
    axes.set_title(f"{budget.unique_tokens:.2g} unique tokens, density {density:g}")
    axes.legend()


def plot_iso_losses(
    axes: Any, law: Law, values: Mapping[str, float], unique_tokens: float, losses: Sequence[float], density: float
) -> None:
    """Tokens that each size needs for a loss."""
    N = np.geomspace(1e7, 1e11, 160)
    for loss, colour in zip(losses, COLOURS, strict=False):
        D = iso_loss(law, values, loss, unique_tokens, density, N)
        axes.plot(N, D / unique_tokens, color=colour, label=f"{loss:g} nats/token")
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="epochs")
    axes.set_title(f"{unique_tokens:.2g} unique tokens, density {density:g}")
    axes.legend()


def plot_densities(axes: Any, law: Law, values: Mapping[str, float], budget: Budget, flops: Sequence[float]) -> None:
    """Best loss at each density, size and epochs free, less that of the dense model."""
    S = np.linspace(budget.densities[0], 1.0, 60)
    for C, colour in zip(flops, COLOURS, strict=False):
        spent = dataclasses.replace(budget, flops=C)
        loss = np.array([best_at_density(law, values, spent, float(one)).loss for one in S])
        axes.plot(S, loss - loss[-1], color=colour, label=f"{C:.0e} FLOPs")
        axes.plot(S[np.argmin(loss)], loss.min() - loss[-1], "*", color=colour, markersize=12)
    axes.axhline(0, color="0.6", linewidth=1)
    axes.set(xlabel="density", ylabel="loss, less that of dense (nats/token)")
    axes.set_title(f"{budget.unique_tokens:.2g} unique tokens")
    axes.legend()


def plot_repetition(
    axes: Any,
    law: Law,
    values: Mapping[str, float],
    parameters: float,
    unique_tokens: float,
    densities: Sequence[float],
) -> None:
    """Loss by epochs at one number of active parameters: where repetition stops to help, by density."""
    epochs = np.geomspace(1, 200, 160)
    for S, colour in zip(densities, COLOURS, strict=False):
        N, D = np.full_like(epochs, parameters), epochs * unique_tokens
        axes.plot(
            epochs, predicted(law, values, N, D, unique_tokens, np.full_like(epochs, S)), color=colour, label=f"{S:g}"
        )
    axes.set(xscale="log", xlabel="epochs", ylabel="loss (nats/token)")
    axes.set_title(f"{parameters:.2g} parameters, {unique_tokens:.2g} unique tokens")
    axes.legend(title="density")


def plot_fitted_epochs(axes: Any, law: Law, values: Mapping[str, float], table: Table) -> None:
    """Measured loss by epochs, a mark a run, and what the law says of them, a line a density.

    Args:
      axes: to draw into.
      law: the law.
      values: its parameters.
      table: runs of one size and one number of unique tokens; parameters follow density.
    """
    N, D, U, S = (table.columns[name] for name in "NDUS")
    for density, colour in zip(sorted(set(S.tolist()), reverse=True), COLOURS, strict=False):
        mine = density == S
        epochs = np.geomspace(np.min(D[mine] / U[mine]), np.max(D[mine] / U[mine]), 80)
        unique, same = float(U[mine][0]), np.ones_like(epochs)
        curve = predicted(law, values, same * N[mine][0], epochs * unique, unique, same * density)
        axes.plot(epochs, curve, color=colour, label=f"{density:.3g}")
        axes.plot(D[mine] / U[mine], table.loss[mine], "o", color=colour)
    axes.set(xscale="log", xlabel="epochs", ylabel="validation loss (nats/token)")
    axes.set_title(f"{float(U[0]):.2g} unique tokens: runs and {law.name}")
    axes.legend(title="density")


def _star(axes: Any, x: float, y: float, choice: Choice, colour: str) -> None:
    face = "none" if choice.edges else colour
    axes.plot(x, y, "*", markersize=12, markeredgecolor=colour, markerfacecolor=face)
