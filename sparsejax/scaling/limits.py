"""What a user gives, and what of it a law may use: nothing is advised that no fitted run had."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.devices import flops_per_hour, most_parameters, skips_zeros
from sparsejax.scaling.frontier import Budget, check_budget
from sparsejax.scaling.prediction import SLACK
from sparsejax.scaling.saved_fit import SavedFit

if TYPE_CHECKING:  # at run time it would import jax, and the answer wait for it
    from sparsejax.hardware.systems import System

_ANY = (0.0, np.inf)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a run may take.

    Attributes:
      flops: of training, six for every parameter and token; those executed where zeros are multiplied.
      unique_tokens: distinct tokens at hand; infinite for text without an end.
      epochs: most passes over the unique tokens.
      least_density: lowest density to consider.
      system: devices that will run it; None for any that skip zeros.
      hours: most hours on them; None for no limit.
    """

    flops: float
    unique_tokens: float
    epochs: float = 1000.0
    least_density: float = 0.0625
    system: System | None = None
    hours: float | None = None


def budget_within(known: SavedFit, limits: Limits) -> Budget:
    """The part of the limits that lies within the fitted runs.

    Raises:
      ConfigError: they do not meet: too little text or too few FLOPs for any run like the fitted ones.
    """
    (N_low, N_high), (D_low, D_high), (U_low, U_high), (S_low, S_high), (least, most) = (
        known.ranges.get(name, _ANY) for name in ("N", "D", "U", "S", "epochs")
    )
    least = max(least, 1.0)
    if not limits.unique_tokens > 0:
        raise ConfigError(f"--unique-tokens={limits.unique_tokens:g}: must be above 0")
    if limits.unique_tokens < U_low * (1 - SLACK):
        raise ConfigError(
            f"--unique-tokens={limits.unique_tokens:g}: the fitted runs had {U_low:.3g} to {U_high:.3g} unique tokens; "
            "nothing is advised outside of them: give more text, or a fit of runs with as little"
        )
    if limits.epochs < least * (1 - SLACK):
        raise ConfigError(
            f"--epochs={limits.epochs:g}: the fitted runs had {least:.3g} to {most:.3g} epochs; nothing is advised "
            "outside of them"
        )
    flops, memory = limits.flops, None
    if limits.system is not None:
        memory = most_parameters(limits.system)
        if limits.hours is not None:
            flops = min(flops, limits.hours * flops_per_hour(limits.system))
    twins = known.convention == "total"
    skips = skips_zeros(limits.system)
    budget = Budget(
        flops=flops,
        unique_tokens=min(limits.unique_tokens, U_high),
        parameters=(max(N_low, 1e3), min(N_high, 1e13)),
        densities=(max(limits.least_density, S_low), min(1.0, S_high)),
        tokens=(max(D_low, U_low * least, 1e3), D_high),
        epochs=min(limits.epochs, most),
        least_epochs=least,
        least_unique=max(U_low, 1.0),
        overhead=_overhead(twins, skips),
        most_parameters=None if memory is None else lambda S: memory / S if twins else memory,
    )
    check_budget(budget)
    return budget


def _overhead(twins: bool, skips: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Density to parameters that a token is multiplied with over those that the law counts."""
    if twins:
        return np.positive if skips else np.ones_like
    return np.ones_like if skips else np.reciprocal
