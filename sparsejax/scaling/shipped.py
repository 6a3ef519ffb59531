"""The run to start: a shipped size, a density, a share of the text and a number of epochs that keep every limit.

Whole epochs and the sizes that there are leave no optimum of a law as it is, so all of them are priced, and the one
with the lowest loss is taken. Where an optimum wants all the text, a run on a part of it must be better by more than
the law's error.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from sparsejax.models.sizes import SIZES
from sparsejax.scaling.devices import Realised, flops_per_hour, kernel_block, most_state_bytes, realised, skips_zeros
from sparsejax.scaling.frontier import FLOPS_PER_PARAMETER_AND_TOKEN, Budget
from sparsejax.scaling.limits import Limits
from sparsejax.scaling.prediction import SLACK, Prediction, loss_at, predict_run
from sparsejax.scaling.saved_fit import SavedFit

# Unique tokens are whole rows of any usual length.
_ROWS = 1024
_DENSITIES = 40


@dataclasses.dataclass(frozen=True)
class Run:
    """One run as ``sparsejax train`` takes it.

    Attributes:
      model: the size at the density.
      density: as the config takes it.
      parameters: N, as the law counts it.
      unique_tokens: to draw from.
      epochs: whole passes over them.
      flops: what it costs, as the limits count.
      prediction: its loss.
    """

    model: Realised
    density: float
    parameters: float
    unique_tokens: int
    epochs: int
    flops: float
    prediction: Prediction

    @property
    def tokens(self) -> int:
        """Training tokens, repetitions counted."""
        return self.unique_tokens * self.epochs


def best_run(known: SavedFit, limits: Limits, budget: Budget, dense: bool, all_text: bool) -> Run | str:
    """The run with the lowest predicted loss of all that keep the limits; the reason if there is none.

    Args:
      known: the law.
      limits: as given.
      budget: the part of them within the fitted runs.
      dense: at density 1, else below.
      all_text: whether the optimum uses all the text that it may.
    """
    found, reasons = [], Counter[str]()
    for density in (1.0,) if dense else densities(budget):
        for name in SIZES:
            model = realised(name, density, kernel_block(limits.system), skips_zeros(limits.system))
            if not dense and model.density == 1:
                continue
            problem = _problem(known, limits, budget, model)
            if problem:
                reasons[problem] += 1
                continue
            for unique, epochs in _spendings(known, limits, budget, model):
                N, D = model.counted(known.convention), float(unique * epochs)
                loss = loss_at(known, dict(known.values), N, D, float(unique), model.density)
                # In what residuals compare, as the law's error is.
                penalty = known.noise if all_text and unique + _ROWS <= budget.unique_tokens else 0.0
                found.append((float(known.law.compared(loss)) + penalty, density, model, unique, epochs))
            if not found:
                reasons["FLOPs, hours or text give too few tokens"] += 1
    if not found:
        return f"none of the shipped sizes: {reasons.most_common(1)[0][0]}" if reasons else "no density is left"
    _, density, model, unique, epochs = min(found, key=lambda one: one[0])
    N = model.counted(known.convention)
    return Run(
        model=model,
        density=density,
        parameters=N,
        unique_tokens=unique,
        epochs=epochs,
        flops=_cost(known, model) * unique * epochs,
        prediction=predict_run(known, N, float(unique * epochs), float(unique), model.density),
    )


def densities(budget: Budget) -> list[float]:
    """Densities below 1 within a budget, as few digits as a command needs."""
    low, high = budget.densities
    if low > high:
        return []
    exact = np.geomspace(low, high, _DENSITIES)
    short = {float(f"{one:.3g}") for one in exact} | {float(f"{low:.4g}")}
    return sorted(one for one in short if low * (1 - SLACK) <= one <= high * (1 + SLACK) and one < 1)


def _problem(known: SavedFit, limits: Limits, budget: Budget, model: Realised) -> str:
    N, (low, high) = model.counted(known.convention), budget.parameters
    if not low * (1 - SLACK) <= N <= high * (1 + SLACK):
        return f"the fitted runs had {low:.3g} to {high:.3g} parameters"
    if limits.system is not None and model.state_bytes > most_state_bytes(limits.system):
        return "memory"
    return ""


def _cost(known: SavedFit, model: Realised) -> float:
    return FLOPS_PER_PARAMETER_AND_TOKEN * model.paid(known.convention)


def _spendings(known: SavedFit, limits: Limits, budget: Budget, model: Realised) -> Iterator[tuple[int, int]]:
    """Unique tokens and epochs that use what may be used: all the text fewer times, or a part of it once more."""
    tokens = min(limits.flops / _cost(known, model), budget.most_tokens)
    if limits.system is not None and limits.hours is not None:
        tokens = min(tokens, limits.hours * flops_per_hour(limits.system) / model.executed)
    least, most = math.ceil(budget.least_epochs * (1 - SLACK)), math.floor(budget.epochs * (1 + SLACK))
    most = max(most, least)
    whole = math.floor(tokens / budget.unique_tokens)
    for epochs in {min(max(whole, least), most), min(max(whole + 1, least), most)}:
        unique = math.floor(min(tokens / epochs, budget.unique_tokens) / _ROWS) * _ROWS
        if unique >= max(budget.least_unique * (1 - SLACK), _ROWS) and unique * epochs >= budget.tokens[0] * (
            1 - SLACK
        ):
            yield unique, epochs
