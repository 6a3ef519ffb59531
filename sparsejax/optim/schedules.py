"""Learning-rate shapes: a linear warm-up, then a decay that ends exactly at the last step.

Steps count from 0 to ``steps - 1``. The peak is reached in step ``peak = max(w - 1, 0)``, where w is the number of
warm-up steps, and held or left from there; later steps than the last keep the last step's value.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sparsejax.config import ConfigError, OptimConfig

Step = int | jax.Array
Schedule = Callable[[Step], jax.Array]


def learning_rate(config: OptimConfig, steps: int) -> Schedule:
    """The learning rate of every step of a run, as an optax schedule.

    Shapes, with ``x`` the fraction of the way from the peak to the last step and ``a = min_ratio``:

    - ``constant``: lr.
    - ``linear``: lr (1 - (1 - a) x).
    - ``cosine``: lr (a + (1 - a) (1 + cos(pi x)) / 2).
    - ``wsd``: lr, then linear to a lr over the last ``decay_fraction`` of all steps.
    - ``cosine_restarts``: ``restarts`` cosines of equal length (to one step), each from lr to a lr.

    The warm-up is ``lr (step + 1) / w`` with w the nearest integer to ``warmup_fraction * steps``, at least 1 if the
    fraction is positive. The first step's rate is always above 0. A warm-up over the whole run never decays.

    Args:
      config: uses lr, schedule, warmup_fraction, min_ratio, decay_fraction and restarts.
      steps: length of the run.

    Returns:
      A function of the step (an int or an integer array, traced or not) that returns the rate, a float array.

    Raises:
      ConfigError: more restarts than the run has steps for.
      ValueError: ``steps`` is not positive, or the schedule's name is unknown.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: a learning rate needs at least one step")
    warmup = max(1, round(config.warmup_fraction * steps)) if config.warmup_fraction > 0 else 0
    shape = _shape(config, steps, peak=max(warmup - 1, 0))

    def rate(step: Step) -> jax.Array:
        step = jnp.minimum(step, steps - 1)
        rise = jnp.minimum((step + 1) / max(warmup, 1), 1.0)
        return config.lr * rise * shape(step)

    return rate


def _shape(config: OptimConfig, steps: int, peak: int) -> Schedule:
    """The factor after the warm-up: 1 up to step ``peak``, then the decay, for steps up to ``steps - 1``."""
    last, low = steps - 1, config.min_ratio
    match config.schedule:
        case "constant":
            return lambda step: jnp.ones_like(_fraction(step, peak, last))
        case "linear":
            return lambda step: _line(_fraction(step, peak, last), low)
        case "cosine":
            return lambda step: _cosine(_fraction(step, peak, last), low)
        case "wsd":
            decay = round(config.decay_fraction * steps)
            # A decay longer than what the warm-up leaves starts at the peak.
            return lambda step: _line(_fraction(step, max(last - decay, peak), last), low if decay else 1.0)
        case "cosine_restarts":
            return _restarts(config.restarts, low, peak, steps)
    raise ValueError(f"schedule={config.schedule!r}: unknown learning-rate shape")


def _restarts(cycles: int, low: float, peak: int, steps: int) -> Schedule:
    """``cycles`` cosines over steps ``peak`` to ``steps - 1``; cycle j starts at point ``j * points // cycles``."""
    points = steps - peak
    if points < 2 * cycles:
        raise ConfigError(
            f"optim.restarts={cycles}: the {points} steps after the warm-up hold at most {points // 2} cycles; "
            "lower it or train longer"
        )

    def shape(step: Step) -> jax.Array:
        point = jnp.maximum(step - peak, 0)
        cycle = ((point + 1) * cycles - 1) // points
        start, end = cycle * points // cycles, (cycle + 1) * points // cycles - 1
        return _cosine((point - start) / (end - start), low)

    return shape


def _fraction(step: Step, start: int, end: int) -> jax.Array:
    """How far ``step`` lies on the way from ``start`` to ``end``, in [0, 1]; 0 where the two coincide."""
    return jnp.clip((step - jnp.asarray(start)) / max(end - start, 1), 0.0, 1.0)


def _line(x: jax.Array, low: float) -> jax.Array:
    return 1.0 - (1.0 - low) * x


def _cosine(x: jax.Array, low: float) -> jax.Array:
    return low + (1.0 - low) * 0.5 * (1.0 + jnp.cos(jnp.pi * x))
