"""One question answered: so many unique tokens and FLOPs, which size, which density, how many epochs, and how sure?"""

from __future__ import annotations

import dataclasses

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.frontier import Budget, Choice, best, best_at_density, check_budget, predicted
from sparsejax.scaling.saved_fit import SavedFit

# Two-sided 90 % points: of the normal, and of the t with 11 degrees that the published law's 11 errors leave.
_NORMAL, _T11 = 1.645, 1.796
LEVEL = 0.9
# Optima of refits: enough for a 90 % interval, few enough to answer at once.
_REFITS = 60


@dataclasses.dataclass(frozen=True)
class Ends:
    """Ends of a 90 % interval."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Advised:
    """A choice with its certainty.

    Attributes:
      choice: the optimum of the best estimate.
      loss: interval of the loss a run would measure: the law's error, and that of its parameters if they were sampled.
      parameters: interval of the optimal N over refits; None without samples. Likewise ``epochs`` and ``density``.
      epochs: see ``parameters``.
      density: see ``parameters``.
      beyond: what lies outside the fitted runs, in words.
    """

    choice: Choice
    loss: Ends
    parameters: Ends | None
    epochs: Ends | None
    density: Ends | None
    beyond: tuple[str, ...]


def advise(known: SavedFit, budget: Budget) -> tuple[Advised, Advised | None]:
    """Best dense and best sparse choice; the second is None for a law that knows no density.

    Raises:
      ConfigError: a budget that no run can have, or a law that cannot answer.
    """
    check_budget(budget)
    if not {"N", "D"} <= set(known.law.columns) or not set(known.law.columns) <= {"N", "D", "U", "S"}:
        raise ConfigError(
            f"--fit: law {known.law.name} reads {', '.join(known.law.columns)}; advice needs one of N, D, U and density"
        )
    dense = _advised(known, budget, dense=True)
    if "S" not in known.law.columns:
        return dense, None
    return dense, _advised(known, budget, dense=False)


def _advised(known: SavedFit, budget: Budget, dense: bool) -> Advised:
    def optimum(values: dict[str, float]) -> Choice:
        return best_at_density(known.law, values, budget, 1.0) if dense else best(known.law, values, budget)

    choice = optimum(dict(known.values))
    refits = [known.sample(k) for k in range(min(known.count, _REFITS))]
    optima = [optimum(values) for values in refits]
    N, D, S = np.array([choice.parameters]), np.array([choice.tokens]), np.array([choice.density])
    logs = [float(np.log(predicted(known.law, values, N, D, budget.unique_tokens, S)[0])) for values in refits]
    spread = known.noise * (_NORMAL if refits else _T11)
    # Errors of the law and of its parameters add as variances.
    low, high = (-spread, spread)
    if refits:
        ends = np.quantile(logs, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - np.log(choice.loss)
        low, high = -float(np.hypot(spread, min(ends[0], 0.0))), float(np.hypot(spread, max(ends[1], 0.0)))
    return Advised(
        choice=choice,
        loss=Ends(choice.loss * float(np.exp(low)), choice.loss * float(np.exp(high))),
        parameters=_ends([one.parameters for one in optima]),
        epochs=_ends([one.epochs for one in optima]),
        density=None if dense else _ends([one.density for one in optima]),
        beyond=_beyond(known, budget, choice),
    )


def _ends(samples: list[float]) -> Ends | None:
    if not samples:
        return None
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ends(float(low), float(high))


def _beyond(known: SavedFit, budget: Budget, choice: Choice) -> tuple[str, ...]:
    asked = {
        "N": ("parameters", choice.parameters),
        "U": ("unique tokens", min(budget.unique_tokens, choice.tokens)),
        "epochs": ("epochs", choice.epochs),
        "S": ("density", choice.density),
    }
    found = []
    for name, (words, value) in asked.items():
        if name in known.ranges:
            low, high = known.ranges[name]
            if not low * 0.999 <= value <= high * 1.001:
                found.append(f"{words} {value:.3g} (fitted: {low:.3g} to {high:.3g})")
    return tuple(found)
