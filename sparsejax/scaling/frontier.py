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
    bottoms, tops = _limits(budget, S)
    bottom, top = max(bottoms, key=lambda name: bottoms[name][0]), min(tops, key=lambda name: tops[name][0])
    if not bottoms[bottom][0] < tops[top][0]:
        raise ConfigError(f"density {density:g}: nothing fits between {bottom} and {top}")
    N, loss = (found[0] for found in _best_sizes(law, values, budget, S))
    ends = {bottom: np.log(bottoms[bottom][0]), top: np.log(tops[top][0])}
    edges = tuple(name for name, end in ends.items() if abs(np.log(N) - end) < 1e-4 * (ends[top] - ends[bottom]))
    D = _tokens(budget, N, S)[0]
    return Choice(float(N), float(D), float(D / budget.unique_tokens), density, float(loss), edges)


def best(law: Law, values: Mapping[str, float], budget: Budget) -> Choice:
    """Lowest loss over N and density.

    Raises:
      ConfigError: nothing fits the budget.
    """
    low, high = budget.densities
    density = float(
        _zoom(
            lambda S: _best_sizes(law, values, budget, S.ravel())[1].reshape(S.shape),
            np.array([low]),
            np.array([high]),
            points=17,
            zooms=5,
        )[0]
    )
    choice = best_at_density(law, values, budget, density)
    edges = [f"density {end:g}" for end in (low, high) if abs(density - end) < 1e-3 * (high - low)]
    return dataclasses.replace(choice, edges=(*choice.edges, *edges))


def _limits(budget: Budget, S: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What bounds N from below and from above at densities ``[k]``, by name, each ``[k]``."""
    epochs = _tokens(budget, np.ones_like(S), S) / (budget.unique_tokens * budget.epochs)
    bottoms = {"fewest parameters": np.full_like(S, budget.parameters[0]), f"{budget.epochs:g} epochs": epochs}
    tops = {"most parameters": np.full_like(S, budget.parameters[1])}
    if budget.most_parameters is not None:
        tops["memory"] = np.array([budget.most_parameters(float(density)) for density in S])
    return bottoms, tops


def _best_sizes(law: Law, values: Mapping[str, float], budget: Budget, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best N and its loss at densities ``[k]``; the loss is infinite where nothing fits."""
    bottoms, tops = _limits(budget, S)
    low, high = np.log(np.max([*bottoms.values()], axis=0)), np.log(np.min([*tops.values()], axis=0))

    def losses(x: np.ndarray) -> np.ndarray:
        N, S_k = np.exp(x), np.broadcast_to(S[:, None], x.shape)
        return predicted(law, values, N, _tokens(budget, N, S_k), budget.unique_tokens, S_k)

    x = _zoom(losses, low, np.maximum(low, high))
    return np.exp(x), np.where(low < high, losses(x[:, None])[:, 0], np.inf)


def _tokens(budget: Budget, N: np.ndarray, S: np.ndarray) -> np.ndarray:
    return budget.flops / (FLOPS_PER_PARAMETER_AND_TOKEN * budget.overhead(S) * N)


def _zoom(
    objective: Callable[[np.ndarray], np.ndarray],
    low: np.ndarray,
    high: np.ndarray,
    points: int = _POINTS,
    zooms: int = _ZOOMS,
) -> np.ndarray:
    """Where functions of one variable are least, ``[k]``: the best point of a grid, again on a finer one around it.

    ``objective`` takes ``[k, points]``, a row for each function.
    """
    centre, half = (low + high) / 2, (high - low) / 2
    for _ in range(zooms):
        grid = np.clip(centre[:, None] + half[:, None] * np.linspace(-1, 1, points), low[:, None], high[:, None])
        found = objective(grid)
        at = np.argmin(np.where(np.isfinite(found), found, np.inf), axis=1)
        centre, half = np.take_along_axis(grid, at[:, None], axis=1)[:, 0], half / _SHRINK
    return centre
