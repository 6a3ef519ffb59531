"""Minimises the Huber loss of a law's residuals from many starts at once, in float64, as one compiled program.

Coordinates. A positive parameter is searched as the logarithm of what it is above its least value: these are the
transformed coordinates ``z``. A fit moves in centred coordinates ``u``, ``z = z0 + T u``, where ``T`` adds to the
logarithm of a coefficient what a change of its exponent takes from the term at the geometric mean of the data; rows and
columns of parameters that are not free are 0. In ``u`` coefficient and exponent are nearly independent, which is what
makes some dozens of starts enough.

Method. Levenberg-Marquardt with Huber's weights (reweighted at each step: it minimises a quadratic that lies above the
Huber loss; Madsen, Nielsen and Tingleff, "Methods for non-linear least squares problems", 2004, section 3.2). That
creeps where most residuals are above delta, so once it gains little the quadratic becomes the Huber loss's own, the
Gauss-Newton matrix of the residuals within delta. The law stands in the program once, without second derivatives:
compiling is most of the time of a fit.

Shapes: B starts, R runs, P parameters. The compiled program depends on (law, B, R); which parameters are free, which
runs count, priors and delta are arguments, so stages, bootstraps and folds compile nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.scaling.laws.law import Law, Parameter

# Steps in all, and those of them that may be reweighted.
_STEPS, _REWEIGHTED_STEPS = 200, 100
# A step that lowers the objective by less than this share ends the reweighting, and the search.
_LITTLE, _CONVERGED = 1e-6, 1e-14
_FIRST_DAMPING, _LARGEST_DAMPING = 1e-2, 1e12
# Logarithm of the largest value of a positive parameter: what runs off to infinity stays a number that laws can take.
# Its negative stands for one that is at its least.
_LARGEST = 230.0


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is minimised.

    Attributes:
      law: the law.
      columns: one array ``[R]`` for every column that the law reads.
      target: ``[R]``: log loss, or loss for a law with linear residuals.
      basis: ``T [P, P]``, see above.
      prior_mean: ``[P]`` in transformed coordinates.
      prior_precision: ``[P]``, 0 without a prior. In units of the objective, that is of squared residuals.
      delta: of the Huber loss, in units of residuals.
    """

    law: Law
    columns: Mapping[str, np.ndarray]
    target: np.ndarray
    basis: np.ndarray
    prior_mean: np.ndarray
    prior_precision: np.ndarray
    delta: float


def to_natural(law: Law, z: Any, xp: Any = np) -> dict[str, Any]:
    """Parameter values by name from transformed coordinates ``[..., P]``."""
    return {
        parameter.name: parameter.least + xp.exp(xp.minimum(z[..., i], _LARGEST)) if parameter.positive else z[..., i]
        for i, parameter in enumerate(law.parameters)
    }


def from_natural(law: Law, values: Mapping[str, float]) -> np.ndarray:
    """Transformed coordinates ``[P]`` of values that cover every parameter.

    A positive parameter that a fit has driven to its least value is what rounding made of a logarithm that ran off to
    minus infinity: it gets a number from which the search can go on.

    Raises:
      ValueError: a positive parameter is below its least value.
    """
    for one in law.parameters:
        if one.positive and not values[one.name] >= one.least:
            raise ValueError(f"law {law.name}: {one.name}={values[one.name]:g}: must be above {one.least:g}")
    return np.array([transformed(one, values[one.name]) for one in law.parameters], dtype=np.float64)


def transformed(parameter: Parameter, value: float) -> float:
    """The coordinate of one parameter; see ``from_natural`` for one at its least value."""
    if not parameter.positive:
        return value
    above = value - parameter.least
    return float(np.log(above)) if above > 0 else -_LARGEST


def residuals(law: Law, z: Any, columns: Mapping[str, Any], target: Any, xp: Any = np) -> Any:
    """Prediction minus measurement of every run, ``[R]``: of logarithms, or of losses for a linear law."""
    predicted = law.loss(to_natural(law, z, xp), columns, xp)
    return law.compared(predicted, xp) - target


def huber(residual: Any, delta: Any, xp: Any = np) -> Any:
    """Huber's loss: ``r^2/2`` up to ``delta``, ``delta (|r| - delta/2)`` beyond."""
    size = xp.abs(residual)
    return xp.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta))


def minimise(problem: Problem, starts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A local minimum from each start.

    Args:
      problem: what to minimise.
      starts: ``[B, P]`` in transformed coordinates.
      weights: ``[R]`` or ``[B, R]``: how often each run counts; a bootstrap is a row of counts.

    Returns:
      Coordinates ``[B, P]`` and objectives ``[B]``, ``sum(weights * huber) + prior``; infinite where a start itself has
      no finite loss. On the host's CPU, whatever accelerators are there.
    """
    device = jax.local_devices(backend="cpu")[0]
    weights = np.broadcast_to(weights, (len(starts), len(problem.target)))
    with jax.enable_x64(True), jax.default_device(device):
        arguments = (starts, weights, dict(problem.columns), problem.target, problem.basis)
        prior = problem.prior_mean, problem.prior_precision
        z, objective = _minimise(problem.law, *jax.tree.map(jnp.asarray, (*arguments, *prior)), problem.delta)
        return np.asarray(z), np.asarray(objective)


@functools.partial(jax.jit, static_argnums=0)
def _minimise(
    law: Law,
    starts: jax.Array,
    weights: jax.Array,
    columns: Mapping[str, jax.Array],
    target: jax.Array,
    basis: jax.Array,
    prior_mean: jax.Array,
    prior_precision: jax.Array,
    delta: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    free = jnp.diagonal(basis) != 0
    prior_PP = (basis.T * prior_precision) @ basis

    def search(start: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        def at(u: jax.Array) -> _Point:
            z = start + basis @ u
            r, directional = jax.linearize(lambda z: residuals(law, z, columns, target, jnp), z)
            J = jax.vmap(directional, out_axes=1)(basis.T)
            prior = 0.5 * jnp.sum(prior_precision * (z - prior_mean) ** 2)
            value = jnp.sum(weight * huber(r, delta, jnp)) + prior
            gradient = J.T @ (weight * jnp.clip(r, -delta, delta)) + basis.T @ (prior_precision * (z - prior_mean))
            return _Point(u, value, gradient, r, J)

        def bend(point: _Point, reweighted: jax.Array) -> jax.Array:
            size = jnp.abs(point.residual)
            above, within = jnp.minimum(1.0, delta / jnp.maximum(size, 1e-300)), size <= delta
            J = point.jacobian
            return (J.T * (weight * jnp.where(reweighted, above, within))) @ J + prior_PP

        found = _descend(at, bend, free, len(weight))
        return start + basis @ found.u, found.value

    return jax.vmap(search)(starts, weights)


class _Point(NamedTuple):
    """A place ``u [P]``, and there the objective, its gradient, residuals ``[R]`` and their Jacobian ``[R, P]``."""

    u: jax.Array
    value: jax.Array
    gradient: jax.Array
    residual: jax.Array
    jacobian: jax.Array


class _Search(NamedTuple):
    """The state of a search."""

    point: _Point
    damping: jax.Array
    gain: jax.Array
    reweighted: jax.Array
    steps: jax.Array


def _descend(
    at: Callable[[jax.Array], _Point], bend: Callable[[_Point, jax.Array], jax.Array], free: jax.Array, runs: int
) -> _Point:
    """Damped steps of a quadratic model, taken where they lower the objective; see the top of the file."""

    def unfinished(s: _Search) -> jax.Array:
        going = (s.damping < _LARGEST_DAMPING) & (s.gain > _CONVERGED * s.point.value) & jnp.isfinite(s.point.value)
        return (s.steps < _STEPS) & (s.reweighted & jnp.isfinite(s.point.value) | going | (s.steps == 0))

    def step(s: _Search) -> _Search:
        here = s.point
        there = at(here.u + _damped_move(bend(here, s.reweighted), here.gradient, s.damping, free))
        better = there.value < here.value
        damping = jnp.where(better, jnp.maximum(s.damping / 5, 1e-14), s.damping * 4)
        # A refused step is no sign of convergence, only the damping's limit is.
        gain = jnp.where(better, here.value - there.value, jnp.inf)
        little = (gain <= _LITTLE * there.value) | (damping > _LARGEST_DAMPING) | (s.steps >= _REWEIGHTED_STEPS)
        turn = s.reweighted & little
        return _Search(
            jax.tree.map(lambda new, old: jnp.where(better, new, old), there, here),
            jnp.where(turn, _FIRST_DAMPING, damping),
            jnp.where(turn, jnp.inf, gain),
            s.reweighted & ~turn,
            s.steps + 1,
        )

    P = len(free)
    start, infinite = jnp.zeros(P), jnp.asarray(jnp.inf)
    # Nothing is known of the start yet: without a gradient the first step does not move, and finds it better.
    nowhere = _Point(start, infinite, start, jnp.zeros(runs), jnp.zeros((runs, P)))
    first = _Search(nowhere, jnp.asarray(_FIRST_DAMPING), infinite, jnp.asarray(True), jnp.asarray(0))
    return jax.lax.while_loop(unfinished, step, first).point


def _damped_move(hessian: jax.Array, gradient: jax.Array, damping: jax.Array, free: jax.Array) -> jax.Array:
    """``-(H + damping diag(H))^-1 g``; NaN where rounding lets the model curve down, so that it is refused."""
    diagonal = jnp.where(free, jnp.maximum(jnp.abs(jnp.diagonal(hessian)), 1e-30), 1.0)
    # Scaled to a unit diagonal, so that the solve sees no units.
    scale = 1 / jnp.sqrt(diagonal)
    scaled = hessian * scale[:, None] * scale[None, :]
    damped = scaled + jnp.diag(jnp.where(free, damping + 1e-15, 1.0))
    move = -scale * jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(damped), True), scale * gradient)
    return jnp.where(free, move, 0.0)
