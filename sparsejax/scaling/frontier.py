"""Where a law's loss is lowest: sizes, epochs and densities under a budget, and the curves around them. NumPy only.

Training FLOPs are ``6 N D``, N as the law counts it. A run that sees fewer than the unique tokens at hand has drawn as
many as it sees. An optimum on the edge of what was searched is no optimum: it names the edge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.laws.law import Law

FLOPS_PER_PARAMETER_AND_TOKEN = 6.0
_POINTS, _ZOOMS, _SHRINK = 65, 7, 8.0


@dataclasses.dataclass(frozen=True)
class Budget:
    """What may be spent.

    Attributes:
      flops: of training; for a program that multiplies zeros, those it executes, see ``overhead``.
      unique_tokens: distinct tokens at hand.
      parameters: ``(least, most)`` values of N that are searched.
      densities: ``(least, most)`` densities that are searched.
      epochs: most passes over the unique tokens.
      overhead: density to executed over theoretical FLOPs: 1 where kernels skip zeros, 1/S where they do not.
      most_parameters: density to the largest N that fits the memory, or None for no limit.
    """

    flops: float
    unique_tokens: float
    parameters: tuple[float, float] = (1e6, 1e13)
    densities: tuple[float, float] = (0.0625, 1.0)
    epochs: float = 1000.0
    overhead: Callable[[np.ndarray], np.ndarray] = np.ones_like
    most_parameters: Callable[[float], float] | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """A run that a law advises.

    Attributes:
      parameters: N, as the law counts it.
      tokens: D.
      epochs: D over the unique tokens.
      density: S.
      loss: predicted, in nats/token.
      edges: which limits of the search it lies on; empty for a true optimum.
    """

    parameters: float
    tokens: float
    epochs: float
    density: float
    loss: float
    edges: tuple[str, ...]


def check_budget(budget: Budget) -> None:
    """Refuse budgets that no run can have.

    Raises:
      ConfigError: an amount that is not above 0 and finite, or FLOPs that do not pay one epoch of the smallest model.
    """
    for name, value in (("--flops", budget.flops), ("--unique-tokens", budget.unique_tokens)):
        if not 0 < value < np.inf:
            raise ConfigError(f"{name}={value:g}: must be above 0 and finite")
    epoch = FLOPS_PER_PARAMETER_AND_TOKEN * budget.parameters[0] * budget.unique_tokens
    if budget.flops < epoch:
        raise ConfigError(
            f"--flops={budget.flops:g}: one epoch of {budget.unique_tokens:g} unique tokens takes {epoch:.2g} for as "
            f"few as {budget.parameters[0]:g} parameters; give more FLOPs, or fewer unique tokens"
        )


def predicted(
    law: Law, values: Mapping[str, float], N: np.ndarray, D: np.ndarray, U: float, S: np.ndarray
) -> np.ndarray:
    """Loss of runs, of whatever columns the law reads among N, D, U and S; arguments broadcast."""
    N, D, S = np.broadcast_arrays(np.asarray(N, dtype=np.float64), D, S)
    columns = {"N": N, "D": D, "U": np.minimum(D, U), "S": S, "N_bar": N}
    return np.asarray(law.loss(values, columns))


def iso_flop(law: Law, values: Mapping[str, float], budget: Budget, density: float, N: np.ndarray) -> np.ndarray:
    """Loss of each N ``[n]`` when all FLOPs are spent on it."""
    S = np.full_like(N, density)
    return predicted(law, values, N, _tokens(budget, N, S), budget.unique_tokens, S)


def iso_loss(
    law: Law, values: Mapping[str, float], loss: float, unique_tokens: float, density: float, N: np.ndarray
) -> np.ndarray:
    """Fewest tokens ``[n]`` with which each N reaches a loss; NaN where it never does, in 10,000 epochs."""
    S, low, high = np.full_like(N, density), np.full_like(N, np.log(1e5)), np.full_like(N, np.log(unique_tokens * 1e4))
    reached = predicted(law, values, N, np.exp(high), unique_tokens, S) <= loss
    for _ in range(60):
        middle = (low + high) / 2
        enough = predicted(law, values, N, np.exp(middle), unique_tokens, S) <= loss
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(reached, np.exp(high), np.nan)


def best_at_density(law: Law, values: Mapping[str, float], budget: Budget, density: float) -> Choice:
    """Lowest loss over N at one density, all FLOPs spent; the rest goes into tokens.

    Raises:
      ConfigError: nothing fits the budget at this density.
    """
    S = np.array([density])
    overhead = float(budget.overhead(S)[0])
    share = budget.flops / overhead / FLOPS_PER_PARAMETER_AND_TOKEN
    limits = {
        "fewest parameters": budget.parameters[0],
        f"{budget.epochs:g} epochs": share / (budget.unique_tokens * budget.epochs),
    }
    tops = {"most parameters": budget.parameters[1]}
    if budget.most_parameters is not None:
        tops["memory"] = budget.most_parameters(density)
    bottom, top = max(limits, key=lambda name: limits[name]), min(tops, key=lambda name: tops[name])
    low, high = np.log(limits[bottom]), np.log(tops[top])
    if not low < high:
        raise ConfigError(f"density {density:g}: nothing fits between {bottom} and {top}")
    N = np.exp(
        _zoom(lambda x: predicted(law, values, np.exp(x), share / np.exp(x), budget.unique_tokens, S), low, high)
    )
    edges = tuple(name for name, end in ((bottom, low), (top, high)) if abs(np.log(N) - end) < 1e-4 * (high - low))
    D = share / N
    loss = float(predicted(law, values, N, D, budget.unique_tokens, S)[0])
    return Choice(float(N), float(D), float(D / budget.unique_tokens), density, loss, edges)


def best(law: Law, values: Mapping[str, float], budget: Budget) -> Choice:
    """Lowest loss over N and density.

    Raises:
      ConfigError: nothing fits the budget.
    """
    low, high = budget.densities

    def losses(densities: np.ndarray) -> np.ndarray:
        return np.array([best_at_density(law, values, budget, float(S)).loss for S in densities])

    # Coarser than over N: every point is a search of its own.
    density = _zoom(losses, low, high, points=17, zooms=4)
    choice = best_at_density(law, values, budget, float(density))
    edges = [f"density {end:g}" for end in (low, high) if abs(density - end) < 1e-3 * (high - low)]
    return dataclasses.replace(choice, edges=(*choice.edges, *edges))


def _tokens(budget: Budget, N: np.ndarray, S: np.ndarray) -> np.ndarray:
    return budget.flops / (FLOPS_PER_PARAMETER_AND_TOKEN * budget.overhead(S) * N)


def _zoom(
    objective: Callable[[np.ndarray], np.ndarray], low: float, high: float, points: int = _POINTS, zooms: int = _ZOOMS
) -> float:
    """Where a function of one variable is least: the best point of a grid, again on a finer grid around it."""
    centre, half = (low + high) / 2, (high - low) / 2
    for _ in range(zooms):
        grid = np.clip(centre + half * np.linspace(-1, 1, points), low, high)
        value = np.where(np.isfinite(found := objective(grid)), found, np.inf)
        centre, half = float(grid[np.argmin(value)]), half / _SHRINK
    return centre
