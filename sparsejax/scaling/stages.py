"""The staged fit of the sparse law: each stage takes the runs that show its parameters, and keeps what came before.

A stage that freezes earlier parameters hands on their errors; the joint fit, started from the stages, does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.fit import BATCH, PAPERS_DELTA, Fit, fit
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.rows import Table

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
        fits.append(fit(law, part, fixed=kept, delta=delta, starts=BATCH, seed=seed))
        values |= fits[-1].values
    return tuple(fits)


def fit_jointly(
    law: Law, table: Table, stages: Sequence[Stage], delta: float | None = PAPERS_DELTA, seed: int = 0
) -> Fit:
    """All parameters on all runs at once, with the staged answer among the starts; arguments as in ``fit_stages``."""
    staged = fit_stages(law, table, stages, delta, seed)[-1]
    return fit(law, unlimited_once(table), delta=delta, first=[staged.values], seed=seed)
