"""How sure a fit is: bootstrap and profile intervals, condition, correlations, and what the data do not identify."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from sparsejax.scaling.fit import BATCH, Fit, search
from sparsejax.scaling.solver import from_natural, residuals, to_natural

# An interval that covers this factor does not tell the value of an exponent, nor the size of a term.
FACTOR = 4.0
# Ends beyond this factor of the estimate are where an optimizer stopped, not where the data end.
_UNBOUNDED, _BEYOND_ANY = 1e4, 1e30
# Minima within this share of the best are starts of every bootstrap: noise may prefer them.
_RIVAL = 0.05
_RIVALS = 2


@dataclasses.dataclass(frozen=True)
class Interval:
    """Ends of an interval; infinite where the data set no end."""

    low: float
    high: float

    @property
    def identified(self) -> bool:
        """False where it is unbounded, contains 0, or covers ``FACTOR``."""
        if not (np.isfinite(self.low) and np.isfinite(self.high)) or self.low * self.high <= 0:
            return False
        near, far = sorted((abs(self.low), abs(self.high)))
        return bool(far < FACTOR * near)


@dataclasses.dataclass(frozen=True, eq=False)
class Bootstrap:
    """Refits to resampled runs.

    Attributes:
      fit: what was resampled.
      z: ``[samples, P]`` transformed coordinates.
      groups: number of groups that were drawn from.
    """

    fit: Fit
    z: np.ndarray
    groups: int

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Every parameter, ``[samples]``."""
        with np.errstate(over="ignore"):
            return to_natural(self.fit.law, self.z)

    def interval(self, name: str, level: float, term: bool = False) -> Interval:
        """Percentile interval of a parameter, or of its term, see ``centred``; ends beyond any data are infinite."""
        if term:
            with np.errstate(over="ignore"):
                samples, estimate = (np.exp(centred(self.fit, name, z)) for z in (self.z, self.fit.z))
            return percentiles(samples, float(estimate), level)
        return percentiles(self.values[name], self.fit.values[name], level)


def centred(fit: Fit, name: str, z: np.ndarray) -> np.ndarray:
    """Logarithm of a coefficient times its powers at the geometric middle of the runs, at coordinates ``[..., P]``.

    That is its term where the runs are. The coefficient itself is the term at one parameter and one token, so it moves
    with every change of the exponent and of units.
    """
    i = fit.law.names.index(name)
    found = z[..., i]
    for column, exponent, factor in fit.law.parameters[i].centred:
        middle = np.mean(np.log(fit.problem.columns[column]))
        found = found + factor * middle * z[..., fit.law.names.index(exponent)]
    return np.asarray(found)


def bootstrap(fit: Fit, samples: int = 1000, seed: int = 0) -> Bootstrap:
    """Refit to runs drawn with replacement, seeds of one setting together (Efron 1979; groups as clusters).

    Every refit starts at the best minimum and at its rivals and keeps the best. Fixed parameters stay fixed and delta
    stays the fit's. Percentile intervals of this are honest or slightly wide on simulated studies.
    """
    groups, index = np.unique(fit.table.groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=samples)
    weights = counts[:, index].astype(np.float64)
    rivals = [fit.z] + [
        from_natural(fit.law, one.values)
        for one in fit.minima[1 : 1 + _RIVALS]
        if one.objective <= fit.objective * (1 + _RIVAL)
    ]
    starts = np.tile(np.array(rivals), (samples, 1))
    z, objective = search(fit.problem, starts, np.repeat(weights, len(rivals), axis=0))
    best = np.argmin(objective.reshape(samples, len(rivals)), axis=1)
    return Bootstrap(fit, z.reshape(samples, len(rivals), -1)[np.arange(samples), best], len(groups))


def percentiles(samples: np.ndarray, estimate: float, level: float) -> Interval:
    """Equal-tailed percentile interval; infinite above where it leaves a positive estimate by a factor of 10,000."""
    low, high = np.nanquantile(samples, [(1 - level) / 2, (1 + level) / 2], method="linear")
    if high > _BEYOND_ANY or high > estimate * _UNBOUNDED > 0:
        high = np.inf
    return Interval(float(low), float(high))


def profile(fit: Fit, name: str, level: float = 0.95, width: float = 4.0, term: bool = False) -> Interval:
    """Likelihood-ratio interval: values of a parameter at which the best of the others fits nearly as well.

    The threshold is ``q/2 mean(psi^2)/mean(psi')`` with ``psi`` the derivative of the Huber loss and ``q`` the
    chi-square quantile, which makes it that of least squares where no residual exceeds delta (Huber and Ronchetti,
    "Robust Statistics", section 7).

    Args:
      fit: the fit; ``name`` must be one of its free parameters.
      name: the parameter.
      level: of the interval.
      width: natural-logarithm range searched on either side of a positive parameter; of another, in units of its size.
      term: the interval of the whole term of a coefficient, see ``centred``.

    Raises:
      ValueError: the parameter was not fitted.
    """
    if name not in fit.free:
        raise ValueError(f"{name} was not fitted: it has no profile")
    i = fit.law.names.index(name)
    step = width if fit.law.parameters[i].positive else max(abs(fit.z[i]), 0.1) * width / 4
    grid = np.sort(np.concatenate([fit.z[i] + step * np.linspace(-1, 1, 4 * BATCH - 1) ** 3, fit.z[i : i + 1]]))
    # Whatever moves leaves a term where it is; a coefficient has its row cleared too, and stays itself.
    basis = fit.problem.basis * (np.arange(len(fit.z)) != i)
    if not term:
        basis = basis * (np.arange(len(fit.z)) != i)[:, None]
    problem = dataclasses.replace(fit.problem, basis=basis)
    starts = np.tile(fit.z, (len(grid), 1))
    # Along the direction that keeps terms at the centre of the data where they are.
    starts += np.outer(grid - fit.z[i], fit.problem.basis[:, i])
    _, objective = search(problem, starts, np.ones(len(fit.table)))
    objective = np.minimum(objective, np.where(grid == fit.z[i], fit.objective, np.inf))
    inside = np.flatnonzero(objective <= fit.objective + _threshold(fit, level))
    low = (
        -np.inf if inside[0] == 0 else _crossing(grid, objective, inside[0] - 1, fit.objective + _threshold(fit, level))
    )
    last = inside[-1]
    high = np.inf
    if last < len(grid) - 1:
        high = _crossing(grid, objective, last, fit.objective + _threshold(fit, level))
    least = fit.law.parameters[i].least
    if term:
        away = float(centred(fit, name, fit.z)) - fit.z[i]
        return Interval(float(np.exp(low + away)), float(np.exp(high + away)))
    if fit.law.parameters[i].positive:
        return Interval(least + float(np.exp(low)), least + float(np.exp(high)))
    return Interval(float(low), float(high))


def _crossing(grid: np.ndarray, objective: np.ndarray, i: int, height: float) -> float:
    """Where the line from point ``i`` to the next one crosses a height."""
    if not np.isfinite(objective[i] + objective[i + 1]):
        return float(grid[i] if np.isfinite(objective[i]) else grid[i + 1])
    share = (height - objective[i]) / (objective[i + 1] - objective[i])
    return float(grid[i] + share * (grid[i + 1] - grid[i]))


def _threshold(fit: Fit, level: float) -> float:
    from scipy.stats import chi2

    residual = fit.residuals
    slope = np.clip(residual, -fit.delta, fit.delta)
    curvature = max(float(np.mean(np.abs(residual) <= fit.delta)), 1 / len(residual))
    return 0.5 * float(chi2.ppf(level, 1)) * float(np.mean(slope**2)) / curvature


@dataclasses.dataclass(frozen=True)
class Diagnostics:
    """How well the data hold the free parameters apart.

    Attributes:
      condition: ratio of largest to smallest singular value of the Jacobian with columns of unit length, in centred
        coordinates. Above some hundreds a direction is not seen.
      correlations: ``(one, other) -> correlation`` of the estimates, only pairs beyond 0.9.
      residual_scale: robust standard deviation of the residuals.
      seed_scale: standard deviation between seeds of one setting, pooled, of what residuals compare; None without.
    """

    condition: float
    correlations: Mapping[tuple[str, str], float]
    residual_scale: float
    seed_scale: float | None

    @property
    def misspecified(self) -> bool:
        """Residuals three times the noise of seeds: the law, not luck, misses the runs."""
        return self.seed_scale is not None and self.residual_scale > 3 * self.seed_scale


def diagnostics(fit: Fit) -> Diagnostics:
    """Condition, correlations and noise of a fit; from the Jacobian at its best minimum."""
    which = [fit.law.names.index(name) for name in fit.free]
    J = _jacobian(fit) @ fit.problem.basis[:, which]
    length = np.linalg.norm(J, axis=0)
    seen = length > 0
    condition = np.inf
    if seen.all():
        singular = np.linalg.svd(J / length, compute_uv=False)
        condition = float(singular[0] / singular[-1]) if singular[-1] > 0 else np.inf
    # In the parameters themselves, where A and alpha are as entangled as the reader would find them.
    natural = _jacobian(fit)[:, which]
    size = np.linalg.norm(natural, axis=0)
    covariance = np.linalg.pinv((natural / np.where(size > 0, size, 1)).T @ (natural / np.where(size > 0, size, 1)))
    sd = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    correlation = covariance / sd[:, None] / sd[None, :]
    pairs = {
        (one, other): float(correlation[a, b])
        for a, one in enumerate(fit.free)
        for b, other in enumerate(fit.free)
        if a < b and abs(correlation[a, b]) > 0.9
    }
    return Diagnostics(condition, pairs, fit.scale, seed_scale(fit))


def seed_scale(fit: Fit) -> float | None:
    """Pooled standard deviation within groups of equal settings, as residuals compare; None without repeats."""
    compared, squares, freedom = fit.law.compared(fit.table.loss), 0.0, 0
    for group in np.unique(fit.table.groups):
        inside = compared[fit.table.groups == group]
        squares += float(np.sum((inside - inside.mean()) ** 2))
        freedom += len(inside) - 1
    return float(np.sqrt(squares / freedom)) if freedom else None


def _jacobian(fit: Fit) -> np.ndarray:
    """Residuals by transformed coordinates ``[R, P]``, central differences."""
    columns = []
    for i in range(len(fit.z)):
        step = 1e-6 * max(abs(fit.z[i]), 1.0)
        move = np.where(np.arange(len(fit.z)) == i, step, 0.0)
        ends = [residuals(fit.law, fit.z + sign * move, fit.problem.columns, fit.problem.target) for sign in (1, -1)]
        columns.append((ends[0] - ends[1]) / (2 * step))
    return np.stack(columns, axis=1)
