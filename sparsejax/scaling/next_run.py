"""Which run to train next: the one that shrinks the interval of what you want to know most, per FLOP.

The Bayesian form of D-optimal design for one quantity (Chaloner and Verdinelli 1995): bootstrap refits stand for the
posterior. Of a candidate with predicted log loss ``y`` and noise ``s``, the run removes the share
``cov(q, y)^2 / (var(q) (var(y) + s^2))`` of the variance of the wanted quantity ``q``, in the linear approximation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.frontier import FLOPS_PER_PARAMETER_AND_TOKEN
from sparsejax.scaling.saved_fit import SavedFit


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One run that could be trained.

    Attributes:
      run: its columns, as the law reads them.
      removed: share of the wanted quantity's variance that it removes, in [0, 1).
      flops: what it costs, ``6 N D``.
    """

    run: Mapping[str, float]
    removed: float
    flops: float

    @property
    def worth(self) -> float:
        """Share of the variance removed per FLOP."""
        return self.removed / self.flops


def rank_runs(known: SavedFit, candidates: Mapping[str, np.ndarray], wanted: Sequence[float]) -> list[Candidate]:
    """Candidates, most worth first.

    Args:
      known: a fit with bootstrap refits.
      candidates: a column ``[c]`` for every name the law reads.
      wanted: the quantity under every refit ``[K]``, such as ``beta/(alpha + beta)`` or the loss of a planned run.

    Raises:
      ConfigError: the fit has no refits, or the quantity does not vary over them.
    """
    q = np.asarray(wanted, dtype=np.float64)
    if known.count < 2 or len(q) != known.count:
        raise ConfigError(
            f"ranking runs needs bootstrap refits and the wanted quantity of each; there are {known.count}"
        )
    if not np.ptp(q) > 0:
        raise ConfigError("the wanted quantity is the same under every refit: no run can make it surer")
    loss = np.stack([known.law.loss(known.sample(k), candidates) for k in range(known.count)])
    y = known.law.compared(loss)
    covariance = np.mean((q - q.mean())[:, None] * (y - y.mean(axis=0)), axis=0)
    removed = covariance**2 / (q.var() * (y.var(axis=0) + known.noise**2))
    flops = FLOPS_PER_PARAMETER_AND_TOKEN * candidates["N"] * candidates["D"]
    found = [
        Candidate({name: float(column[i]) for name, column in candidates.items()}, float(removed[i]), float(flops[i]))
        for i in range(len(removed))
    ]
    return sorted(found, key=lambda one: -one.worth)
