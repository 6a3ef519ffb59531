"""Effective dense parameters: the size of the dense model that, by a fitted law, reaches the loss of a run.

The idea is the effective parameter size of Xiao et al., "Densing Law of LLMs" (arXiv 2412.04315), with a law of
pretraining loss in place of benchmark scores: solve ``law(N, D, U, density 1) = loss`` for N, at the tokens D and the
unique tokens U of the run. N is sought among the sizes that the fitted runs had, and a run whose text is unlike theirs
has no number. NumPy only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.frontier import predicted
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.prediction import LEVEL, check_readable, outside
from sparsejax.scaling.runs import RunResult
from sparsejax.scaling.saved_fit import SavedFit
from sparsejax.scaling.tables import COUNTS, row_of_result

# Sizes that are searched where a fit states no range, and the grid on which the first crossing is looked for.
_SIZES, _POINTS = (1e3, 1e15), 1201
_BISECTIONS = 60
_NORMAL = 1.645
_REFITS = 200


@dataclasses.dataclass(frozen=True)
class Effective:
    """A run's effective dense parameters.

    Attributes:
      run: its name.
      loss: nats/token.
      parameters: N of the dense model; infinite where none of the fitted sizes reaches the loss, 0 where all do, NaN
        where the law says nothing of such a run.
      low: end of a 90 % interval: errors of the law, of its parameters if they were sampled, and of the loss.
      high: its other end; infinite where the interval holds losses that none of the fitted sizes reaches.
      own: N of the run itself, as the law counts it.
      twin: N of its dense twin.
      floor: least loss of a dense model of a fitted size on these tokens, by the law.
      sizes: least and greatest N of the fitted runs.
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
    sizes: tuple[float, float]
    warnings: tuple[str, ...]

    @property
    def per_parameter(self) -> float:
        """Dense parameters that one of the run's own parameters is worth."""
        return self.parameters / self.own


def check_fit(known: SavedFit) -> None:
    """Refuse a law that has no effective parameters for any run.

    Raises:
      ConfigError: it reads something else than N, D, U and density, or counts N in a way that runs do not state.
    """
    check_readable(known)
    if known.convention not in COUNTS:
        raise ConfigError(f"--fit: {known.origin}: counts {known.convention}; a run states {', '.join(COUNTS)}")


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
    check_fit(known)
    row = row_of_result(result, known.convention)
    D, U = row.tokens, row.unique_tokens
    sizes = known.ranges.get("N", _SIZES)
    unlike = _unlike(known, result, D, U, loss)
    if unlike:
        size = low = high = floor = math.nan
    else:
        size, floor = dense_size(known.law, known.values, loss, D, U, sizes)
        low, high = _interval(known, loss, 0.0 if math.isnan(error) else error, size, D, U)
    embedding = result.active_parameters - result.non_embedding_parameters
    twin = result.total_parameters - (embedding if known.convention == "active_non_embedding" else 0)
    warnings = unlike or _warnings(size, floor, loss, sizes)
    if row.dense_start:
        warnings += ("it began with the weights of a dense model, whose training the law does not see",)
    return Effective(run, loss, size, low, high, row.parameters, float(twin), floor, sizes, warnings)


def dense_size(
    law: Law, values: Mapping[str, float], loss: float, D: float, U: float, sizes: tuple[float, float] = _SIZES
) -> tuple[float, float]:
    """The least N among ``sizes`` at which the dense law falls to ``loss``, and the law's least loss over them.

    A grid finds the first crossing, since a law may rise again with N where text is scarce; bisection does the rest.
    N is infinite where there is no crossing, and 0 where the smallest model is better already.
    """

    def at(N: np.ndarray) -> np.ndarray:
        return predicted(law, values, N, np.full_like(N, D), U, np.ones_like(N))

    grid = np.geomspace(*sizes, _POINTS)
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
    law, sizes = known.law, known.ranges.get("N", _SIZES)
    spread = _NORMAL * math.hypot(known.noise, error / loss if law.residual == "log" else error)
    middle = float(law.compared(loss))
    losses = [float(law.loss_of(middle + shift)) for shift in (spread, -spread)]
    ends = [dense_size(law, known.values, one, D, U, sizes)[0] for one in losses]
    if not known.count or not 0 < size < math.inf:
        return ends[0], ends[1]
    refits = [dense_size(law, known.sample(k), loss, D, U, sizes)[0] for k in range(min(known.count, _REFITS))]
    # Order statistics, because some refits may have no such size.
    sampled = np.quantile(refits, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="closest_observation")
    low = math.hypot(_distance(size, ends[0]), _distance(size, min(float(sampled[0]), size)))
    high = math.hypot(_distance(size, ends[1]), _distance(size, max(float(sampled[1]), size)))
    return size * math.exp(-low), size * math.exp(high) if high < math.inf and size * math.exp(high) <= sizes[
        1
    ] else math.inf


def _distance(one: float, other: float) -> float:
    return abs(math.log(other / one)) if 0 < other < math.inf else math.inf


def _unlike(known: SavedFit, result: RunResult, D: float, U: float, loss: float) -> tuple[str, ...]:
    """The reasons why the law says nothing of a run."""
    found = []
    for name, mine, theirs in (
        ("tokenizer", result.tokenizer_digest, known.tokenizer),
        ("data set", result.data_digest, known.text),
    ):
        if theirs and mine != theirs:
            found.append(f"its {name} is not that of the fitted runs, so its loss does not compare with theirs")
    if not math.isfinite(loss):
        found.append("its loss is not a number")
    found += [
        f"{words}: the law says nothing of such a run" for words in outside(known, {"D": D, "U": U, "epochs": D / U})
    ]
    if known.ranges.get("S", (1.0, 1.0))[1] < 1 - 1e-3:
        found.append("the fitted runs were all sparse: the law says nothing of dense models")
    return tuple(found)


def _warnings(size: float, floor: float, loss: float, sizes: tuple[float, float]) -> tuple[str, ...]:
    if size == math.inf:
        return (
            f"below what the law describes: by it no dense model of up to {sizes[1]:.3g} parameters, the most that the "
            f"fitted runs had, gets under {floor:.4f} nats/token on these tokens, and the run has {loss:.4f}",
        )
    if size == 0:
        return (
            f"above what the law describes: a dense model of {sizes[0]:.3g} parameters, the fewest that the fitted "
            "runs had, is better already",
        )
    return ()


def effective_lines(known: SavedFit, rows: list[Effective]) -> list[str]:
    """What to print, a line each."""
    count = known.convention.replace("_", " ")
    of = "A law's losses are those of its own text and tokenizer: of runs on others the number means nothing."
    lines = [f"Law {known.law.name}: {known.origin}; N counts {count}." + ("" if known.tokenizer else f" {of}")]
    for one in rows:
        lines.append(_line(one))
        lines += [f"WARNING {one.run}: {warning}" for warning in one.warnings]
    return lines


def _line(one: Effective) -> str:
    own = f"the run has {one.own:.3g}"
    if math.isnan(one.parameters):
        return f"{one.run}: {one.loss:.4f} nats/token, no effective parameters; {own}, its dense twin {one.twin:.3g}"
    if one.parameters in (0.0, math.inf):
        end = (
            f"{one.sizes[1]:.3g} parameters or fewer" if one.parameters else f"fewer than {one.sizes[0]:.3g} parameters"
        )
        reach = f"no dense model of {end}" if one.parameters else f"a dense model of {end}"
        return f"{one.run}: {one.loss:.4f} nats/token is reached by {reach}; {own}, its dense twin {one.twin:.3g}"
    low = f"{one.low:.3g}" if one.low > 0 else f"fewer than {one.sizes[0]:.3g}"
    high = f"{one.high:.3g}" if one.high < math.inf else f"more than {one.sizes[1]:.3g}"
    return (
        f"{one.run}: {one.loss:.4f} nats/token is reached by a dense model of {one.parameters:.3g} parameters (90 %: "
        f"{low} to {high}); {own}, worth {one.per_parameter:.2f} times its own, its dense twin {one.twin:.3g}"
    )
