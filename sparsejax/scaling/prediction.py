"""The loss that a law predicts for one run, with an interval, and what of the run the fitted runs never saw."""

from __future__ import annotations

import dataclasses

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.frontier import predicted
from sparsejax.scaling.row_checks import other_units
from sparsejax.scaling.saved_fit import SavedFit

# Two-sided 90 % points: of the normal, and of the t with 11 degrees that the published law's 11 errors leave.
_NORMAL, _T11 = 1.645, 1.796
LEVEL = 0.9
# Refits that are asked: enough for a 90 % interval, few enough to answer at once.
REFITS = 60
# Counts of runs are not so exact that an end is crossed by less.
SLACK = 1e-3
WORDS = {"N": "parameters", "D": "tokens", "U": "unique tokens", "epochs": "epochs", "S": "density"}


@dataclasses.dataclass(frozen=True)
class Ends:
    """Ends of a 90 % interval."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The loss of one run by a law.

    Attributes:
      loss: nats/token.
      ends: of the loss that such a run would measure: the law's error, and that of its parameters if they were sampled.
      outside: what of the run lies outside the fitted runs, in words.
    """

    loss: float
    ends: Ends
    outside: tuple[str, ...]


def predict_run(
    known: SavedFit, parameters: float, tokens: float, unique_tokens: float = np.inf, density: float = 1.0
) -> Prediction:
    """Predict the loss of one run.

    Args:
      known: the law.
      parameters: N, as the law counts it (``known.convention``).
      tokens: training tokens, repetitions counted.
      unique_tokens: distinct tokens at hand; a run that sees fewer has drawn as many as it sees.
      density: in (0, 1].

    Raises:
      ConfigError: a number that no run can have, or a law that reads something else.
    """
    check_readable(known)
    for name, value in (("parameters", parameters), ("tokens", tokens), ("unique_tokens", unique_tokens)):
        if not value > 0 or (not np.isfinite(value) and name != "unique_tokens"):
            raise ConfigError(f"{name}={value:g}: must be above 0 and finite")
    if not 0 < density <= 1:
        raise ConfigError(f"density={density:g}: must be in (0, 1]")
    if "S" not in known.law.columns and density < 1 and not _seen(known, "S", density):
        raise ConfigError(f"density={density:g}: law {known.law.name} does not know density")
    unique = min(tokens, unique_tokens)
    loss = loss_at(known, dict(known.values), parameters, tokens, unique, density)
    run = {"N": parameters, "D": tokens, "U": unique, "epochs": tokens / unique, "S": density}
    return Prediction(loss, _ends(known, loss, parameters, tokens, unique, density), outside(known, run))


def check_readable(known: SavedFit) -> None:
    """Refuse laws that say nothing of a run of N parameters, D tokens, U unique tokens and a density.

    Raises:
      ConfigError: the law reads other columns, counts steps, or was fitted to a table in millions or billions.
    """
    columns = set(known.law.columns)
    if not {"N", "D"} <= columns or not columns <= {"N", "D", "U", "S"}:
        raise ConfigError(
            f"--fit: law {known.law.name} reads {', '.join(known.law.columns)}; this needs a law of N, D, U and density"
        )
    if known.tokens_in != "tokens":
        raise ConfigError(f"--fit: {known.origin}: its runs state {known.tokens_in}, not tokens; give a fit of tokens")
    if {"N", "D", "U"} <= set(known.ranges):
        N, D, U = (known.ranges[name][1] for name in "NDU")
        problem = other_units(N, D, U)
        if problem:
            raise ConfigError(f"--fit: {known.origin}: the largest of its runs has {problem} and fit again")


def loss_at(known: SavedFit, values: dict[str, float], N: float, D: float, U: float, S: float) -> float:
    """Loss of one run under some values of the parameters, nats/token."""
    return float(predicted(known.law, values, np.array(N), np.array(D), U, np.array(S)))


def outside(known: SavedFit, run: dict[str, float]) -> tuple[str, ...]:
    """What of a run, by the names of ``ranges``, no fitted run had, in words."""
    found = []
    for name, value in run.items():
        if not _seen(known, name, value):
            low, high = known.ranges[name]
            found.append(f"{WORDS[name]} {value:.3g} (fitted: {low:.3g} to {high:.3g})")
    return tuple(found)


def _seen(known: SavedFit, name: str, value: float) -> bool:
    if name not in known.ranges:
        return True
    low, high = known.ranges[name]
    return low * (1 - SLACK) <= value <= high * (1 + SLACK)


def _ends(known: SavedFit, loss: float, N: float, D: float, U: float, S: float) -> Ends:
    spread = known.noise * (_NORMAL if known.count else _T11)
    middle, low, high = float(known.law.compared(np.array(loss))), -spread, spread
    if known.count:
        with np.errstate(all="ignore"):
            refits = [loss_at(known, known.sample(k), N, D, U, S) for k in range(min(known.count, REFITS))]
            compared = known.law.compared(np.array(refits))
        if np.isnan(compared).any():
            raise ConfigError(f"--fit: {known.origin}: a refit of law {known.law.name} gives no loss there; fit again")
        ends = np.quantile(compared, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - middle
        # Errors of the law and of its parameters add as variances.
        low, high = -float(np.hypot(spread, min(ends[0], 0.0))), float(np.hypot(spread, max(ends[1], 0.0)))
    return Ends(*(float(known.law.loss_of(np.array(middle + end))) for end in (low, high)))
