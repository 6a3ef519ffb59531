"""Where a law's loss is lowest: sizes, epochs and densities under a budget, and the curves around them. NumPy only.

Training FLOPs are ``6 N D``, N as the law counts it. A run that sees fewer than the unique tokens at hand has drawn as
many as it sees. FLOPs that no run may use, because of its tokens or epochs, stay unspent. An optimum on the edge of
what was searched is no optimum: it names the edge.
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
      unique_tokens: distinct tokens at hand; infinite for text without an end.
      parameters: ``(least, most)`` values of N that are searched.
      densities: ``(least, most)`` densities that are searched.
      tokens: ``(least, most)`` tokens of a run, repetitions counted.
      epochs: most passes over the unique tokens.
      least_epochs: fewest passes over those that are used.
      least_unique: fewest unique tokens that are used.
      overhead: density to executed over theoretical FLOPs: 1 where kernels skip zeros, 1/S where they do not.
      most_parameters: density to the largest N that fits the memory, or None for no limit.
    """

    flops: float
    unique_tokens: float
    parameters: tuple[float, float] = (1e6, 1e13)
    densities: tuple[float, float] = (0.0625, 1.0)
    tokens: tuple[float, float] = (1e5, np.inf)
    epochs: float = 1000.0
    least_epochs: float = 1.0
    least_unique: float = 1.0
    overhead: Callable[[np.ndarray], np.ndarray] = np.ones_like
    most_parameters: Callable[[float], float] | None = None

    @property
    def most_tokens(self) -> float:
        """Tokens that epochs and the longest run allow."""
        return min(self.tokens[1], self.unique_tokens * self.epochs)

    def used(self, tokens: np.ndarray) -> np.ndarray:
        """Unique tokens of runs of so many tokens."""
        return np.minimum(tokens / self.least_epochs, self.unique_tokens)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A run that a law advises.

    Attributes:
      parameters: N, as the law counts it.
      tokens: D.
      unique_tokens: U, at most D.
      epochs: D over U, at least 1.
      density: S.
      loss: predicted, in nats/token.
      edges: which limits of the search it lies on; empty for a true optimum.
    """

    parameters: float
    tokens: float
    unique_tokens: float
    epochs: float
    density: float
    loss: float
    edges: tuple[str, ...]


def check_budget(budget: Budget) -> None:
    """Refuse budgets that no run can have.

    Raises:
      ConfigError: an amount that is not above 0, FLOPs without an end, or too few of either for the smallest run.
    """
    if not 0 < budget.flops < np.inf:
        raise ConfigError(f"--flops={budget.flops:g}: must be above 0 and finite")
    if not budget.unique_tokens > 0:
        raise ConfigError(f"--unique-tokens={budget.unique_tokens:g}: must be above 0")
    least, tokens = budget.parameters[0], budget.tokens[0]
    if budget.most_tokens < tokens:
        raise ConfigError(
            f"--unique-tokens={budget.unique_tokens:g}: {budget.epochs:g} epochs are fewer than {tokens:g} tokens, the "
            "shortest run there is advice for; give more unique tokens"
        )
    # A machine that multiplies zeros pays more for a sparse run, never less than this.
    needed = FLOPS_PER_PARAMETER_AND_TOKEN * least * tokens * float(np.min(budget.overhead(np.array(budget.densities))))
    if budget.flops < needed * (1 - 1e-9):
        raise ConfigError(
            f"--flops={budget.flops:g}: nothing fits: {least:g} parameters and {tokens:g} tokens, the least there is "
            f"advice for, take {needed:.2g}; give more FLOPs"
        )


def predicted(
    law: Law, values: Mapping[str, float], N: np.ndarray, D: np.ndarray, U: np.ndarray | float, S: np.ndarray
) -> np.ndarray:
    """Loss of runs, of whatever columns the law reads among N, D, U and S; arguments broadcast."""
    N, D, S = np.broadcast_arrays(np.asarray(N, dtype=np.float64), D, S)
    columns = {"N": N, "D": D, "U": np.minimum(D, U), "S": S, "N_bar": N}
    return np.asarray(law.loss(values, columns))


def iso_flop(law: Law, values: Mapping[str, float], budget: Budget, density: float, N: np.ndarray) -> np.ndarray:
    """Loss of each N ``[n]`` when all FLOPs that may be spent on it are."""
    S = np.full_like(N, density)
    D = _tokens(budget, N, S)
    return predicted(law, values, N, D, budget.used(D), S)


def iso_loss(
    law: Law, values: Mapping[str, float], loss: float, unique_tokens: float, density: float, N: np.ndarray
) -> np.ndarray:
    """Fewest tokens ``[n]`` with which each N reaches a loss; NaN where it never does, in 10,000 epochs."""
    S, low, high = (
        np.full_like(N, density),
        np.full_like(N, np.log(1e5)),
        np.full_like(N, np.log(min(unique_tokens * 1e4, 1e20))),
    )
    reached = predicted(law, values, N, np.exp(high), unique_tokens, S) <= loss
    for _ in range(60):
        middle = (low + high) / 2
        enough = predicted(law, values, N, np.exp(middle), unique_tokens, S) <= loss
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(reached, np.exp(high), np.nan)


def best_at_density(law: Law, values: Mapping[str, float], budget: Budget, density: float) -> Choice:
    """Lowest loss over N at one density; what FLOPs are left go into tokens, as far as they may.

    Raises:
      ConfigError: nothing fits the budget at this density.
    """
    S = np.array([density])
    bottoms, tops = _limits(budget, S)
    bottom, top = max(bottoms, key=lambda name: bottoms[name][0]), min(tops, key=lambda name: tops[name][0])
    if not bottoms[bottom][0] <= tops[top][0] * (1 + 1e-9):
        raise ConfigError(
            f"density {density:g}: nothing fits: {bottom} are {bottoms[bottom][0]:.3g}, and {top} leave "
            f"{tops[top][0]:.3g}"
        )
    N, loss = (found[0] for found in _best_sizes(law, values, budget, S))
    ends = {bottom: np.log(bottoms[bottom][0]), top: np.log(tops[top][0])}
    width = max(ends[top] - ends[bottom], 1.0)
    edges = [name for name, end in ends.items() if abs(np.log(N) - end) < 1e-4 * width]
    D = float(_tokens(budget, N, S)[0])
    if budget.most_tokens * (1 - 1e-3) < D:
        limited = budget.unique_tokens * budget.epochs <= budget.tokens[1]
        edges.append(f"{budget.epochs:g} epochs" if limited else f"{budget.tokens[1]:.3g} tokens")
    U = float(budget.used(np.array(D)))
    return Choice(float(N), D, U, D / U, density, float(loss), tuple(edges))


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
    affordable = budget.flops / (FLOPS_PER_PARAMETER_AND_TOKEN * budget.overhead(S) * budget.tokens[0])
    bottoms = {"fewest parameters": np.full_like(S, budget.parameters[0])}
    tops = {"most parameters": np.full_like(S, budget.parameters[1]), "FLOPs": affordable}
    if budget.most_parameters is not None:
        tops["memory"] = np.array([budget.most_parameters(float(density)) for density in S])
    return bottoms, tops


def _best_sizes(law: Law, values: Mapping[str, float], budget: Budget, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best N and its loss at densities ``[k]``; the loss is infinite where nothing fits."""
    bottoms, tops = _limits(budget, S)
    low, high = np.log(np.max([*bottoms.values()], axis=0)), np.log(np.min([*tops.values()], axis=0))

    def losses(x: np.ndarray) -> np.ndarray:
        N, S_k = np.exp(x), np.broadcast_to(S[:, None], x.shape)
        D = _tokens(budget, N, S_k)
        return predicted(law, values, N, D, budget.used(D), S_k)

    x = _zoom(losses, low, np.maximum(low, high))
    # Rounding must not lead beyond an end.
    N = np.clip(np.exp(x), np.exp(low), np.exp(np.maximum(low, high)))
    return N, np.where(low <= high + 1e-9, losses(np.log(N)[:, None])[:, 0], np.inf)


def _tokens(budget: Budget, N: np.ndarray, S: np.ndarray) -> np.ndarray:
    affordable = budget.flops / (FLOPS_PER_PARAMETER_AND_TOKEN * budget.overhead(S) * N)
    return np.minimum(affordable, budget.most_tokens)


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
