"""Effective dense parameters: the size of the dense model that, by a fitted law, reaches the loss of a run.

The idea is the effective parameter size of Xiao et al., "Densing Law of LLMs" (arXiv 2412.04315), with a law of
pretraining loss in place of benchmark scores: solve ``law(N, D, U, density 1) = loss`` for N, at the tokens D and the
unique tokens U of the run. NumPy only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.frontier import predicted
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.runs import RunResult
from sparsejax.scaling.saved_fit import SavedFit
from sparsejax.scaling.tables import row_of_result

# Sizes that are searched, and the grid on which the first crossing is looked for before it is bisected.
_LEAST, _MOST, _POINTS = 1e3, 1e15, 1201
_BISECTIONS = 60
_NORMAL = 1.645
_REFITS = 200
LEVEL = 0.9


@dataclasses.dataclass(frozen=True)
class Effective:
    """A run's effective dense parameters.

    Attributes:
      run: its name.
      loss: nats/token.
      parameters: N of the dense model; infinite where no dense model reaches the loss, 0 where all do.
      low: end of a 90 % interval: errors of the law, of its parameters if they were sampled, and of the loss.
      high: its other end; infinite where the interval holds losses that no dense model reaches.
      own: N of the run itself, as the law counts it.
      twin: N of its dense twin.
      floor: least loss of any dense model on these tokens, by the law.
      warnings: what makes the number less than it seems, a line each.
    """

    run: str
    loss: float
    parameters: float
    low: float
    high: float
    own: float
    twin: float
    floor: float
    warnings: tuple[str, ...]

    @property
    def per_parameter(self) -> float:
        """Dense parameters that one of the run's own parameters is worth."""
        return self.parameters / self.own


def effective_parameters(known: SavedFit, result: RunResult, run: str, loss: float, error: float) -> Effective:
    """Effective dense parameters of a finished run.

    Args:
      known: the law.
      result: of the run; its tokens, unique tokens and parameters.
      run: what to call it.
      loss: its validation loss, in nats/token.
      error: standard error of that loss; NaN if it is not known.

    Raises:
      ConfigError: the law reads something else than N, D, U and density, or counts N in a way that runs do not state.
    """
    if not {"N", "D"} <= set(known.law.columns) or not set(known.law.columns) <= {"N", "D", "U", "S"}:
        raise ConfigError(
            f"--fit: law {known.law.name} reads {', '.join(known.law.columns)}; effective parameters need one of "
            "N, D, U and density"
        )
    row = row_of_result(result, known.convention)
    D, U = row.tokens, row.unique_tokens
    size, floor = dense_size(known.law, known.values, loss, D, U)
    low, high = _interval(known, loss, 0.0 if math.isnan(error) else error, size, D, U)
    embedding = result.active_parameters - result.non_embedding_parameters
    twin = result.total_parameters - (embedding if known.convention == "active_non_embedding" else 0)
    warnings = _warnings(known, size, D, U, floor, loss)
    if row.dense_start:
        warnings += ("it began with the weights of a dense model, whose training the law does not see",)
    return Effective(run, loss, size, low, high, row.parameters, float(twin), floor, warnings)


def dense_size(law: Law, values: Mapping[str, float], loss: float, D: float, U: float) -> tuple[float, float]:
    """The least N at which the dense law falls to ``loss``, and the law's least loss over all N.

    A grid finds the first crossing, since a law may rise again with N where text is scarce; bisection does the rest.
    N is infinite where there is no crossing, and 0 where the smallest model searched is better already.
    """

    def at(N: np.ndarray) -> np.ndarray:
        return predicted(law, values, N, np.full_like(N, D), U, np.ones_like(N))

    grid = np.geomspace(_LEAST, _MOST, _POINTS)
    found = at(grid)
    floor = float(np.min(found))
    reached = np.flatnonzero(found <= loss)
    if not reached.size:
        return math.inf, floor
    if reached[0] == 0:
        return 0.0, floor
    low, high = np.log(grid[reached[0] - 1]), np.log(grid[reached[0]])
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if float(at(np.exp([middle]))[0]) <= loss else (middle, high)
    return float(np.exp(high)), floor


def _interval(known: SavedFit, loss: float, error: float, size: float, D: float, U: float) -> tuple[float, float]:
    """Errors in log loss become errors in log N at the best estimate; those of the parameters are those of refits."""
    spread = _NORMAL * math.hypot(known.noise, error / loss)
    ends = [dense_size(known.law, known.values, loss * math.exp(shift), D, U)[0] for shift in (spread, -spread)]
    if not known.count or not 0 < size < math.inf:
        return ends[0], ends[1]
    refits = [dense_size(known.law, known.sample(k), loss, D, U)[0] for k in range(min(known.count, _REFITS))]
    # Order statistics, because some refits may have no such size.
    sampled = np.quantile(refits, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="closest_observation")
    low = math.hypot(_distance(size, ends[0]), _distance(size, min(float(sampled[0]), size)))
    high = math.hypot(_distance(size, ends[1]), _distance(size, max(float(sampled[1]), size)))
    return size * math.exp(-low), size * math.exp(high) if high < math.inf else math.inf


def _distance(one: float, other: float) -> float:
    return abs(math.log(other / one)) if 0 < other < math.inf else math.inf


def _warnings(known: SavedFit, size: float, D: float, U: float, floor: float, loss: float) -> tuple[str, ...]:
    found = []
    if size == math.inf:
        found.append(
            f"below the floor of the law: by it no dense model on these tokens gets under {floor:.4f} nats/token, "
            f"and the run has {loss:.4f}"
        )
    if size == 0:
        found.append(f"above all that the law describes: a dense model of {_LEAST:.0e} parameters is better already")
    asked = {"N": ("parameters", size), "D": ("tokens", D), "U": ("unique tokens", U), "epochs": ("epochs", D / U)}
    for name, (words, value) in asked.items():
        if name in known.ranges and 0 < value < math.inf:
            low, high = known.ranges[name]
            if not low * 0.999 <= value <= high * 1.001:
                found.append(f"{words} {value:.3g} lie outside the fitted runs ({low:.3g} to {high:.3g})")
    return tuple(found)


def effective_lines(known: SavedFit, rows: list[Effective]) -> list[str]:
    """What to print, a line each."""
    count = known.convention.replace("_", " ")
    lines = [
        f"Law {known.law.name}: {known.origin}; N counts {count}. A law's losses are those of its own text and "
        "tokenizer: of runs on others the number means nothing."
    ]
    for one in rows:
        reach = "no dense model" if one.parameters == math.inf else f"a dense model of {one.parameters:.3g} parameters"
        interval = "" if one.parameters in (0.0, math.inf) else f" (90 %: {one.low:.3g} to {one.high:.3g})"
        worth = "" if one.parameters in (0.0, math.inf) else f", worth {one.per_parameter:.2f} times its own"
        lines.append(
            f"{one.run}: {one.loss:.4f} nats/token is reached by {reach}{interval}; the run has {one.own:.3g}"
            f"{worth}, its dense twin {one.twin:.3g}"
        )
        lines += [f"WARNING {one.run}: {warning}" for warning in one.warnings]
    return lines
