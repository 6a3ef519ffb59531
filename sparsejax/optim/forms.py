"""The arithmetic of one update of one leaf, in the three forms of sparse Adam.

With ``t`` the step count of a block, 1 at its first update, ``d`` the density of its weight, ``p`` the density
exponent and ``W`` the ramp (SMET, arXiv 2606.00888):

    m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2
    m^ = m / (1 - b1^t)             v^ = v / (1 - b2^t)
    direction = d^-p * r * m^ / (sqrt(v^) + eps)

The forms differ in ``t`` and in the ramp factor ``r``. A block is *regrown* if its age (updates since it was grown)
is below the global count.

- ``"smet"``, the paper's text: ``t`` is the block's age; ``r = min(t / W, 1)`` for regrown blocks, 1 for others.
- ``"naive"``, SET and RigL under plain Adam: ``t`` is the global count and ``r = 1``. A regrown block then starts
  with ``(1 - b1) / sqrt(1 - b2) = 3.16`` learning rates: the loss spikes the paper is about.
- ``"smet_code"``, the code published with the paper: a regrown block counts 1 before its first update, so ``t`` is
  its age + 1; ``r = 1``, but the *stored* first moment is multiplied by ``min(t / W, 1)`` in every update, so that
  the factors compound: at ``t = 50``, ``W = 100`` a constant gradient moves a weight by 0.09 learning rates instead
  of 0.50. That includes dense leaves and the start of training. Its runs had no density scale (``p = 0``) and
  coupled weight decay, added to the gradient.

Dense leaves have ``t = count``, ``r = 1``, ``d = 1``. A free slot (moments and gradient 0) moves by exactly 0.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from sparsejax.optim.arguments import check_hyperparameters

Form = Literal["smet", "naive", "smet_code"]


@dataclasses.dataclass(frozen=True)
class AdamRule:
    """Hyperparameters of the update, in the letters of this file's equations.

    Attributes:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added to the root of the second moment.
      form: ``"smet"``, ``"naive"`` or ``"smet_code"``.
      density_exponent: p.
      ramp: W, in updates, at least 1.
    """

    b1: float
    b2: float
    eps: float
    form: Form
    density_exponent: float
    ramp: int

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"form={self.form!r}: not one of {', '.join(get_args(Form))}")
        check_hyperparameters(
            b1=self.b1, b2=self.b2, eps=self.eps, density_exponent=self.density_exponent, ramp=self.ramp
        )


def adam_step(
    rule: AdamRule,
    g: jax.Array,
    m: jax.Array,
    v: jax.Array,
    count: jax.Array,
    age: jax.Array,
    density: float | jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One update of one leaf.

    Args:
      rule: hyperparameters.
      g: gradient; the arithmetic is float32, or float64 for a float64 gradient.
      m: first moment, the shape of ``g``.
      v: second moment, the shape of ``g``.
      count: ``[]`` int32, global number of updates, this one included.
      age: int32, each block's number of updates, this one included: ``[..., n, 1, 1]`` for a block-sparse leaf,
        ``count`` itself for a dense one. Every per-block factor keeps that shape and is never spread over elements.
      density: d of the leaf, a float, or traced where it moves.

    Returns:
      ``(direction, m, v)``: the direction to subtract, and the new moments.
    """
    dtype = at_least_float32(g.dtype)
    g, m, v = g.astype(dtype), m.astype(dtype), v.astype(dtype)
    regrown = age < count
    local = age + regrown.astype(age.dtype) if rule.form == "smet_code" else age
    t = (count if rule.form == "naive" else local).astype(dtype)
    warm = jnp.minimum(t / rule.ramp, 1.0)

    # Multiplying the new m by ``warm`` instead would make XLA keep the unscaled one as well, a whole extra copy.
    stored = warm if rule.form == "smet_code" else 1.0
    m = (rule.b1 * stored) * m + ((1 - rule.b1) * stored) * g
    v = rule.b2 * v + (1 - rule.b2) * jnp.square(g)
    gain = density**-rule.density_exponent / _bias_correction(rule.b1, t)
    if rule.form == "smet":
        gain = gain * jnp.where(regrown, warm, 1.0)
    root = jnp.sqrt(v / _bias_correction(rule.b2, t))
    return gain * m / (root + rule.eps), m, v


def at_least_float32(dtype: Any) -> Any:
    """The dtype of the arithmetic on leaves of ``dtype``: float64 for float64, else float32."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def _bias_correction(decay: float | jax.Array, t: jax.Array) -> jax.Array:
    """``1 - decay^t`` as ``-expm1(t log decay)``, which does not cancel for small t; 1 for decay 0."""
    if isinstance(decay, jax.Array):
        log_decay: Any = jnp.log(decay)
    else:
        log_decay = math.log(decay) if decay > 0 else -math.inf
    return -jnp.expm1(t * log_decay)
