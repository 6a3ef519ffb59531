"""One question answered: so many unique tokens and FLOPs, which size, which density, how many epochs, and how sure?

Nothing is advised that the fitted runs did not have: at the end of what they had, the answer is that end, and says so.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.frontier import Budget, Choice, best, best_at_density
from sparsejax.scaling.limits import Limits, budget_within
from sparsejax.scaling.prediction import (
    LEVEL,
    REFITS,
    SLACK,
    WORDS,
    Ends,
    check_readable,
    loss_at,
    predict_run,
)
from sparsejax.scaling.saved_fit import SavedFit
from sparsejax.scaling.shipped import Run, best_run

# By this factor more text is given, to see that a law thinks it better.
_MORE = 1.25
_ENDLESS = 1e30


@dataclasses.dataclass(frozen=True)
class Advised:
    """A choice with its certainty.

    Attributes:
      choice: the optimum of the best estimate within limits and fitted runs.
      loss: interval of the loss a run would measure.
      parameters: interval of the optimal N over refits; None without samples. Likewise ``epochs`` and ``density``.
      epochs: see ``parameters``.
      density: see ``parameters``.
      edges: which ends of the fitted runs or of the limits it lies on, in words; empty for a true optimum.
      run: the shipped size to train, or the reason why there is none.
    """

    choice: Choice
    loss: Ends
    parameters: Ends | None
    epochs: Ends | None
    density: Ends | None
    edges: tuple[str, ...]
    run: Run | str


@dataclasses.dataclass(frozen=True)
class Advice:
    """Best dense and best sparse choice, or the reason why there is none."""

    dense: Advised | str
    sparse: Advised | str


def advise(known: SavedFit, limits: Limits) -> Advice:
    """Best dense and best sparse choice of a law within limits.

    Raises:
      ConfigError: limits that no run can keep, or a law that cannot answer.
    """
    check_readable(known)
    budget = budget_within(known, limits)
    low, high = budget.densities
    dense: Advised | str
    sparse: Advised | str
    if high >= 1 - SLACK:
        dense = _attempt(known, limits, budget, dense=True)
    else:
        dense = f"the fitted runs had densities of {_range(known, 'S')}: there is no dense choice"
    if low > high:
        sparse = f"the fitted runs had densities of {_range(known, 'S')}: none of them is asked for"
    elif low >= 1 - SLACK:
        sparse = "the fitted runs had density 1 only: there is no sparse choice"
    elif "S" not in known.law.columns and high > low * (1 + SLACK):
        sparse = f"law {known.law.name} does not know density: there is no sparse choice"
    else:
        sparse = _attempt(known, limits, budget, dense=False)
    if isinstance(dense, str) and isinstance(sparse, str):
        raise ConfigError(f"nothing fits: {dense}; {sparse}")
    return Advice(dense, sparse)


def _range(known: SavedFit, name: str) -> str:
    low, high = known.ranges[name]
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _attempt(known: SavedFit, limits: Limits, budget: Budget, dense: bool) -> Advised | str:
    try:
        return _advised(known, limits, budget, dense)
    except ConfigError as error:
        return str(error)


def _advised(known: SavedFit, limits: Limits, budget: Budget, dense: bool) -> Advised:
    def optimum(values: dict[str, float]) -> Choice:
        return best_at_density(known.law, values, budget, 1.0) if dense else best(known.law, values, budget)

    choice = optimum(dict(known.values))
    _check_bend(known, choice)
    refits = [known.sample(k) for k in range(min(known.count, REFITS))]
    optima = [optimum(values) for values in refits]
    return Advised(
        choice=choice,
        loss=predict_run(known, choice.parameters, choice.tokens, choice.unique_tokens, choice.density).ends,
        parameters=_ends([one.parameters for one in optima]),
        epochs=_ends([one.epochs for one in optima]),
        density=None if dense else _ends([one.density for one in optima]),
        edges=_edges(known, limits, choice),
        run=best_run(known, limits, budget, dense, choice.unique_tokens > budget.unique_tokens * (1 - SLACK)),
    )


def _ends(samples: list[float]) -> Ends | None:
    if not samples:
        return None
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ends(float(low), float(high))


def _check_bend(known: SavedFit, choice: Choice) -> None:
    """Refuse a law by which more text makes a run worse, or a larger model that never sees its text again.

    Raises:
      ConfigError: it bends the wrong way at the choice, or its loss there is no number.
    """
    N, D, U, S = choice.parameters, choice.tokens, choice.unique_tokens, choice.density

    def loss(N: float, D: float, U: float) -> float:
        return loss_at(known, dict(known.values), N, D, U, S)

    here, endless = loss(N, D, U), loss(N, _ENDLESS, _ENDLESS)
    rises = {
        "more unique tokens, seen as often,": loss(N, D * _MORE, U * _MORE) - here,
        "fresh tokens in place of repeated ones": loss(N, D, min(U * _MORE, D)) - here,
        "more parameters and text without an end": loss(N * _MORE, _ENDLESS, _ENDLESS) - endless,
    }
    where = f"law {known.law.name} at {N:.3g} parameters, {D:.3g} tokens and density {S:.3g}"
    if not np.isfinite([here, endless, *rises.values()]).all():
        raise ConfigError(f"{where}: its loss is not a number, so it gives no advice")
    for words, rise in rises.items():
        if rise > 1e-9 * abs(here):
            raise ConfigError(f"{where}: {words} would raise the loss, so it gives no advice; fit more runs")


def _edges(known: SavedFit, limits: Limits, choice: Choice) -> tuple[str, ...]:
    """Ends of the fitted runs on which a choice lies, and ends of the limits that are not theirs."""
    values = {
        "N": choice.parameters,
        "D": choice.tokens,
        "U": choice.unique_tokens,
        "epochs": choice.epochs,
        "S": choice.density,
    }
    fitted = {}
    for name, value in values.items():
        low, high = known.ranges.get(name, (0.0, np.inf))
        # One epoch and density 1 are where runs begin, not where the fitted ones end.
        ends = [end for end in (low, high) if not (name in ("epochs", "S") and end == 1 and low < high)]
        if any(abs(value / end - 1) < 2 * SLACK for end in ends if 0 < end < np.inf):
            fitted[name] = f"{WORDS[name]} {value:.3g} (the fitted runs had {low:.3g} to {high:.3g})"
    # A run of one epoch has as many unique tokens as tokens, and an only density or number of epochs is no edge.
    for name in ("S", "epochs"):
        low, high = known.ranges.get(name, (0.0, np.inf))
        if (
            name in fitted
            and low == high
            and (name == "S" or limits.unique_tokens <= choice.unique_tokens * (1 + SLACK))
        ):
            del fitted[name]
    named = {"parameters": "N", "epochs": "epochs", "tokens": "D"}
    others = [
        edge
        for edge in choice.edges
        if edge != "density 1"
        and named.get(edge.split()[-1], "S" if edge.startswith("density") else edge) not in fitted
    ]
    return (*fitted.values(), *others)
