"""The staged fit of the sparse law: each stage takes the runs that show its parameters, and keeps what came before.

A stage that freezes earlier parameters hands on their errors, and binds itself to wherever an earlier stage came to
rest in a valley that its own runs hardly see. ``loosened`` frees all parameters for the last stage and lets the earlier
ones rise by a hair; the joint fit, started from the stages, weighs all runs alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from scipy.optimize import minimize

from sparsejax.config import ConfigError
from sparsejax.scaling.fit import BATCH, PAPERS_DELTA, Fit, fit, huber_sum
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.rows import Table
from sparsejax.scaling.solver import to_natural
from sparsejax.scaling.starts import basis_of

# By this share an earlier stage's objective may rise: as far as the published procedure stops from its minimum.
SLACK = 2e-5
_SEARCH = {"maxiter": 200, "ftol": 1e-9}
# A run that repeats nothing shows no limit of its unique tokens.
_UNLIMITED = 1e30
_ONE_EPOCH = 1 + 1e-6


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
      name: in words.
      free: parameters it fits; those of earlier stages that it does not name are kept.
      runs: ``[R]`` bool, the runs it is fitted to.
    """

    name: str
    free: tuple[str, ...]
    runs: Callable[[Table], np.ndarray]


def _once(table: Table) -> np.ndarray:
    return table.columns["D"] <= table.columns["U"] * _ONE_EPOCH


def _dense(table: Table) -> np.ndarray:
    return table.columns["S"] >= 1


# arXiv 2606.01155: E, A, B and alpha are fitted again in the second stage.
SPARSE_REPEATED_STAGES: tuple[Stage, ...] = (
    Stage("dense, one epoch", ("E", "A", "B", "alpha"), lambda t: _once(t) & _dense(t)),
    Stage("one epoch", ("E", "A", "B", "alpha", "eps", "mu", "c"), _once),
    Stage("dense, many epochs", ("g1", "g2"), lambda t: ~_once(t) & _dense(t)),
    Stage("sparse, many epochs", ("c11", "c12", "c21", "c22"), lambda t: ~_once(t) & ~_dense(t)),
)


def unlimited_once(table: Table) -> Table:
    """The table with runs of one epoch drawing from unlimited text, as the staged fit has them: N' = N, D' = D."""
    U = np.where(_once(table), _UNLIMITED, table.columns["U"])
    return dataclasses.replace(table, columns={**table.columns, "U": U})


def fit_stages(
    law: Law, table: Table, stages: Sequence[Stage], delta: float | None = PAPERS_DELTA, seed: int = 0
) -> tuple[Fit, ...]:
    """Fit one stage after the other; the last fit holds every parameter.

    Args:
      law: the law; a parameter that no stage has fitted yet stands at its example value, and must not matter there.
      table: all runs.
      stages: in order; together they name every parameter.
      delta: as in ``fit``.
      seed: of the starts.

    Raises:
      ConfigError: a stage has no runs, or its runs cannot identify its parameters.
    """
    values = {**law.held, **law.example}
    table, fits = unlimited_once(table), []
    for stage in stages:
        chosen = stage.runs(table)
        if not chosen.any():
            raise ConfigError(f"stage '{stage.name}' of law {law.name}: {table.source} has no such runs")
        kept = {name: value for name, value in values.items() if name not in stage.free}
        part = dataclasses.replace(table.where(chosen), source=f"{table.source}, stage '{stage.name}'")
        starts = BATCH if len(stage.free) <= 5 else 2 * BATCH
        fits.append(fit(law, part, fixed=kept, delta=delta, starts=starts, seed=seed))
        values |= fits[-1].values
    return tuple(fits)


@dataclasses.dataclass(frozen=True)
class Loosened:
    """All parameters after the last stage, with the earlier ones nearly kept.

    Attributes:
      values: every parameter by name.
      objectives: of every stage; of a stage whose parameters are all fitted again by a later one, its own minimum.
    """

    values: Mapping[str, float]
    objectives: tuple[float, ...]


def loosened(law: Law, table: Table, stages: Sequence[Stage], fits: Sequence[Fit]) -> Loosened:
    """The lowest last stage, all parameters free, at which no earlier stage is more than ``SLACK`` above its minimum.

    Sequential quadratic programming (SciPy's SLSQP, differences for derivatives) from the frozen stages, every
    objective in units of its minimum; an answer that breaks a bound or gains nothing is not taken. Stages whose
    parameters a later one fits again bind nothing.

    Args:
      law: the law.
      table: all runs.
      stages: as fitted.
      fits: of ``fit_stages``.
    """
    table, delta = unlimited_once(table), fits[-1].delta
    lasting = [i for i, stage in enumerate(stages) if not any(set(stage.free) <= set(s.free) for s in stages[i + 1 :])]
    parts = [table.where(stages[i].runs(table)) for i in lasting]
    minima = np.array([fits[i].objective for i in lasting])
    basis, start = basis_of(law, table.columns, law.held), fits[-1].z

    def relative(k: int, u: np.ndarray) -> float:
        return huber_sum(law, to_natural(law, start + basis @ u), parts[k], delta) / minima[k] - 1

    bounds = [{"type": "ineq", "fun": lambda u, k=k: SLACK - relative(k, u)} for k in range(len(parts) - 1)]
    last = partial(relative, len(parts) - 1)
    found = minimize(last, np.zeros(len(start)), jac="3-point", constraints=bounds, method="SLSQP", options=_SEARCH)
    values = {name: float(value) for name, value in to_natural(law, start + basis @ found.x).items()}
    reached = np.array([huber_sum(law, values, part, delta) for part in parts])
    if np.any(reached[:-1] > minima[:-1] * (1 + 1.01 * SLACK)) or not reached[-1] < minima[-1]:
        values, reached = dict(fits[-1].values), minima
    ends = [fit.objective for fit in fits]
    for i, objective in zip(lasting, reached, strict=True):
        ends[i] = float(objective)
    return Loosened(values, tuple(ends))


def fit_jointly(
    law: Law, table: Table, stages: Sequence[Stage], delta: float | None = PAPERS_DELTA, seed: int = 0
) -> Fit:
    """All parameters on all runs at once, with the staged answer among the starts; arguments as in ``fit_stages``."""
    staged = fit_stages(law, table, stages, delta, seed)[-1]
    return fit(law, unlimited_once(table), delta=delta, first=[staged.values], seed=seed)
