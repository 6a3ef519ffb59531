"""Laws judged by runs they have not seen: the largest, the most repeated, and every fifth.

The objective on the fitted runs always prefers more parameters; what a law is for is the run that is not there yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from sparsejax.scaling.fit import BATCH, Fit, search
from sparsejax.scaling.rows import Table
from sparsejax.scaling.solver import to_natural
from sparsejax.scaling.starts import drawn_starts

_FOLDS = 5
# Share of the runs that is held out as the largest, or the most repeated.
_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Errors on runs that were left out.

    Attributes:
      split: which were left out.
      runs: how many.
      error: mean size of predicted over measured loss, less 1; of their difference in nats/token for a linear law.
      bias: mean of the same with its sign; above 0 the law is too pessimistic.
    """

    split: str
    runs: int
    error: float
    bias: float


def splits(table: Table, seed: int = 0) -> dict[str, list[np.ndarray]]:
    """``[R]`` masks of held-out runs by split; seeds of one setting stay together. A split may have no masks."""
    N, epochs = table.columns["N"], table.columns["D"] / table.columns["U"]
    found = {"largest": _top(N), "most epochs": _top(epochs) if np.ptp(np.log(epochs)) > 1e-3 else []}
    groups = np.unique(table.groups)
    order = np.random.default_rng(seed).permutation(len(groups))
    place = dict(zip(groups[order].tolist(), (np.arange(len(groups)) % _FOLDS).tolist(), strict=True))
    fold = np.array([place[group] for group in table.groups.tolist()])
    return found | {f"{_FOLDS} folds": [fold == i for i in range(_FOLDS)]}


def _top(column: np.ndarray) -> list[np.ndarray]:
    """The runs above the highest threshold that leaves out a fifth at least; none if that were nearly all."""
    values = np.unique(column)
    for threshold in values[-2::-1]:
        held = column > threshold
        if held.mean() >= _SHARE:
            return [held] if held.mean() <= 2 * _SHARE else []
    return []


def held_out(fit: Fit, seed: int = 0) -> tuple[HeldOut, ...]:
    """Refit without each set of runs and predict them; fixed parameters, delta and priors stay those of the fit.

    Refits start at the fit and at fresh starts. Splits that leave fewer runs than free parameters are not answered.
    """
    kept = {name: fit.values[name] for name in fit.law.names if name not in fit.free}
    starts = drawn_starts(fit.law, fit.table.columns, kept, 2 * BATCH, seed)
    starts[0] = fit.z
    results = []
    for name, masks in splits(fit.table, seed).items():
        usable = [held for held in masks if held.any() and np.sum(~held) > len(fit.free)]
        errors = [_errors(fit, starts, held) for held in usable]
        if errors:
            every = np.concatenate(errors)
            results.append(HeldOut(name, len(every), float(np.mean(np.abs(every))), float(np.mean(every))))
    return tuple(results)


def _errors(fit: Fit, starts: np.ndarray, held: np.ndarray) -> np.ndarray:
    z, objective = search(fit.problem, starts, (~held).astype(np.float64))
    with np.errstate(over="ignore"):
        values = to_natural(fit.law, z[np.argmin(objective)])
    predicted = fit.law.loss(values, {name: column[held] for name, column in fit.problem.columns.items()})
    measured = fit.table.loss[held]
    return np.asarray(predicted / measured - 1 if fit.law.residual == "log" else predicted - measured)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Several laws on the same runs.

    Attributes:
      objectives: by law, at one delta.
      errors: by law, then by split.
      warning: where the best in sample is not the best outside; empty if they agree.
    """

    objectives: Mapping[str, float]
    errors: Mapping[str, Mapping[str, float]]
    warning: str


def compare(fits: Sequence[Fit], seed: int = 0) -> Comparison:
    """Objectives beside held-out errors of fits to one table at one delta.

    Raises:
      ValueError: tables, deltas or kinds of residuals differ, so that objectives cannot be compared.
    """
    if len({fit.law.residual for fit in fits}) > 1:
        raise ValueError("objectives can be compared between laws of one kind of residuals only")
    if len({fit.table.digest for fit in fits}) > 1 or len({fit.delta for fit in fits}) > 1:
        raise ValueError("objectives can be compared on one table at one delta only")
    objectives = {fit.law.name: fit.objective for fit in fits}
    errors = {fit.law.name: {one.split: one.error for one in held_out(fit, seed)} for fit in fits}
    inside = min(objectives, key=lambda name: objectives[name])
    shared = [split for split in next(iter(errors.values())) if all(split in found for found in errors.values())]
    better = {split: min(errors, key=lambda name, split=split: errors[name][split]) for split in shared}  # type: ignore[misc]
    against = [
        f"{name} on the {split}" for split, name in better.items() if name != inside and split != f"{_FOLDS} folds"
    ]
    warning = f"{inside} fits best in sample, but extrapolates worse than {', '.join(against)}" if against else ""
    return Comparison(objectives, errors, warning)
