"""Fits a law to a table of runs: estimates, every distinct minimum, and what the data say about their certainty."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.refusals import check_fixed, check_identifiable
from sparsejax.scaling.rows import Table
from sparsejax.scaling.solver import Problem, from_natural, huber, minimise, residuals, to_natural
from sparsejax.scaling.starts import basis_of, drawn_starts

# Huber's delta on log loss that published fits use since arXiv 2203.15556; take it to reproduce them. At the noise of
# language-model runs it is close to a median fit and wastes some of the data.
PAPERS_DELTA = 1e-3
# 95 % as efficient as least squares where noise is normal (Huber 1964).
_EFFICIENT = 1.345
# Residuals of noise-free data are rounding; below this delta the objective would be too.
_DELTA_FLOOR = 1e-6
_FIRST_DELTA = 1e-2
# One size of batch, so that starts, bootstraps, folds and profiles run the same compiled program; small, because a
# batch takes as long as the slowest of its searches.
BATCH, _RUNS = 16, 256
# Objectives closer than this are the same minimum.
_SAME = 1e-6
_DISTINCT = 1e-5


@dataclasses.dataclass(frozen=True)
class Prior:
    """A Gaussian prior: of the parameter, or of its logarithm where the law keeps it positive.

    Attributes:
      mean: most probable value of the parameter itself.
      sd: standard deviation; of the logarithm for a positive parameter, so 0.1 is about 10 %.
    """

    mean: float
    sd: float


@dataclasses.dataclass(frozen=True)
class Minimum:
    """One local minimum: its objective, its parameters, and the share of starts that ended there."""

    objective: float
    values: Mapping[str, float]
    share: float


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A law fitted to a table.

    Attributes:
      law: the law.
      table: the runs.
      values: the best minimum, every parameter by name.
      free: names of the parameters that were fitted.
      objective: sum of Huber losses of the residuals, priors included.
      delta: of the Huber loss.
      scale: robust standard deviation of the residuals, 1.4826 times their median size.
      starts: number of starts.
      agreement: share of the starts that ended at the best minimum, to a millionth of its objective.
      minima: distinct minima, best first.
      z: transformed coordinates of ``values``.
      problem: what was minimised.
    """

    law: Law
    table: Table
    values: Mapping[str, float]
    free: tuple[str, ...]
    objective: float
    delta: float
    scale: float
    starts: int
    agreement: float
    minima: tuple[Minimum, ...]
    z: np.ndarray
    problem: Problem

    @property
    def residuals(self) -> np.ndarray:
        """Prediction minus measurement of every run, of log loss (of loss for a linear law)."""
        return residuals(self.law, self.z, self.problem.columns, self.problem.target)

    @property
    def predicted(self) -> np.ndarray:
        """Loss that the law gives every run, in nats/token."""
        return np.asarray(self.law.loss(self.values, self.problem.columns))

    @property
    def r2(self) -> float:
        """1 - residual over total sum of squares of the loss itself, on the fitted runs; papers report it."""
        loss = self.table.loss
        return 1 - float(np.sum((self.predicted - loss) ** 2) / np.sum((loss - loss.mean()) ** 2))


def fit(
    law: Law,
    table: Table,
    *,
    fixed: Mapping[str, float] | None = None,
    free_held: Sequence[str] = (),
    priors: Mapping[str, Prior] | None = None,
    delta: float | None = None,
    starts: int | None = None,
    first: Sequence[Mapping[str, float]] = (),
    seed: int = 0,
) -> Fit:
    """Fit a law by the Huber loss of its log residuals. Equal arguments give equal bits on one machine.

    Args:
      law: the law.
      table: the runs.
      fixed: parameters that keep a value, beside those the law holds.
      free_held: parameters that the law holds and that are to be fitted.
      priors: by parameter.
      delta: of the Huber loss; None takes 1.345 times the robust scale of the residuals, estimated once from a first
        fit; ``PAPERS_DELTA`` reproduces papers.
      starts: number of starts, rounded up to whole batches; None takes 64, and 128 above five free parameters.
      first: values of further starts, such as those of another fit.
      seed: of the starts.

    Raises:
      ConfigError: the data cannot say what is asked, with the reason.
      ValueError: an unknown parameter.
    """
    kept = {name: value for name, value in law.held.items() if name not in free_held} | dict(fixed or {})
    unknown = (set(kept) | set(priors or {}) | set(free_held)) - set(law.names)
    if unknown:
        raise ValueError(f"law {law.name}: parameter {', '.join(sorted(unknown))} is unknown")
    check_fixed(law, kept)
    free = tuple(name for name in law.names if name not in kept)
    check_identifiable(law, table, kept, set(priors or {}))
    if starts is None:
        starts = 64 if len(free) <= 5 else 128
    problem = problem_of(law, table, kept, _FIRST_DELTA if delta is None else delta, priors, None)
    z0 = drawn_starts(law, table.columns, kept, -(-starts // BATCH) * BATCH, seed)
    for i, values in enumerate(first):
        z0[i + 1] = from_natural(law, {**law.held, **values, **kept})
    weights = np.ones(len(table))
    z, objective = search(problem, z0, weights)
    if delta is None or priors:
        # Once more, now that the size of the residuals is known; the first answers are starts as good as any.
        scale = _scale(residuals(law, z[np.argmin(objective)], problem.columns, problem.target))
        known = max(_EFFICIENT * scale, _DELTA_FLOOR) if delta is None else delta
        problem = problem_of(law, table, kept, known, priors, max(scale, _DELTA_FLOOR))
        z0[0] = z[np.argmin(objective)]
        z, objective = search(problem, z0, weights)
    return _summary(law, table, kept, problem, z, objective)


def problem_of(
    law: Law,
    table: Table,
    kept: Mapping[str, float],
    delta: float,
    priors: Mapping[str, Prior] | None = None,
    scale: float | None = None,
) -> Problem:
    """The minimisation problem with some parameters kept; ``scale`` turns a prior's width into units of residuals."""
    P = len(law.names)
    mean, precision = np.zeros(P), np.zeros(P)
    for name, prior in (priors or {}).items():
        i = law.names.index(name)
        one = law.parameters[i]
        mean[i] = np.log(prior.mean - one.least) if one.positive else prior.mean
        precision[i] = ((_FIRST_DELTA if scale is None else scale) / prior.sd) ** 2
    return Problem(
        law=law,
        columns={name: table.columns[name] for name in law.columns},
        target=law.compared(table.loss),
        basis=basis_of(law, table.columns, kept),
        prior_mean=mean,
        prior_precision=precision,
        delta=delta,
    )


def search(problem: Problem, starts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``solver.minimise`` of any number of starts ``[B, P]``, in equal batches."""
    (B, R), rows = (len(starts), len(problem.target)), _multiple(len(starts), BATCH).reshape(-1, BATCH)
    weights = np.broadcast_to(weights, (B, R))
    # Runs are filled up with copies that weigh nothing, so that tables of like size share a program.
    runs = _multiple(R, _RUNS)
    weights = np.where(np.arange(len(runs)) < R, weights[:, runs], 0.0)
    columns = {name: column[runs] for name, column in problem.columns.items()}
    problem = dataclasses.replace(problem, columns=columns, target=problem.target[runs])
    parts = [minimise(problem, starts[some], weights[some]) for some in rows]
    z, objective = (np.concatenate(part)[:B] for part in zip(*parts, strict=True))
    return z, objective


def _multiple(count: int, unit: int) -> np.ndarray:
    """``0, 1, ... count - 1`` and the last again, up to a multiple of ``unit``."""
    return np.minimum(np.arange(-(-count // unit) * unit), count - 1)


def _summary(
    law: Law, table: Table, kept: Mapping[str, float], problem: Problem, z: np.ndarray, objective: np.ndarray
) -> Fit:
    best = int(np.argmin(objective))
    if not np.isfinite(objective[best]):
        raise ConfigError(f"law {law.name} on {table.source}: no start has a finite loss; fix or free other parameters")
    minima: list[Minimum] = []
    for i in np.argsort(objective):
        worst = minima[-1].objective if minima else -1.0
        if np.isfinite(objective[i]) and objective[i] > worst * (1 + _DISTINCT) + _rounding(table):
            share = float(np.mean(np.abs(objective - objective[i]) <= _DISTINCT * objective[i] + _rounding(table)))
            minima.append(Minimum(float(objective[i]), {**_floats(law, z[i]), **kept}, share))
    return Fit(
        law=law,
        table=table,
        values={**_floats(law, z[best]), **kept},
        free=tuple(name for name in law.names if name not in kept),
        objective=float(objective[best]),
        delta=problem.delta,
        scale=_scale(residuals(law, z[best], problem.columns, problem.target)),
        starts=len(z),
        agreement=float(np.mean(objective <= objective[best] * (1 + _SAME) + _rounding(table))),
        minima=tuple(minima),
        z=z[best],
        problem=problem,
    )


def _floats(law: Law, z: np.ndarray) -> dict[str, float]:
    with np.errstate(over="ignore"):
        return {name: float(value) for name, value in to_natural(law, z).items()}


def _scale(residual: np.ndarray) -> float:
    return 1.4826 * float(np.median(np.abs(residual)))


def _rounding(table: Table) -> float:
    """Objectives below this are what rounding of noise-free data leaves."""
    return len(table) * 1e-20


def huber_sum(law: Law, values: Mapping[str, float], table: Table, delta: float) -> float:
    """The objective of given parameter values on a table, without priors."""
    target = law.compared(table.loss)
    z = from_natural(law, {**law.held, **values})
    return float(np.sum(huber(residuals(law, z, {name: table.columns[name] for name in law.columns}, target), delta)))
