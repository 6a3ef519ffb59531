"""Means over documents with their standard errors: documents are clusters of tokens, not tokens independent draws.

Tokens of one document are alike, so a standard error that counts tokens is too small, often by a factor of several.
With D documents, ``y_i`` the loss summed over document ``i`` and ``x_i`` its tokens (or bytes), the mean a token and
its standard error are those of the ratio estimator (Cochran, "Sampling Techniques", chapter 6):

    r = sum_i y_i / sum_i x_i        SE(r) = sqrt(D / (D - 1) * sum_i (y_i - r x_i)^2) / sum_i x_i

The deviations ``y_i - r x_i`` sum to 0. A paired difference of two models is the same with ``y_i`` the difference of
their losses on document ``i``: what is hard for both cancels. Intervals are ``r ± t SE`` with Student's t at D - 1
degrees of freedom. They say what other documents of this kind would show, nothing of other seeds.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.stats import t as student_t


@dataclasses.dataclass(frozen=True)
class Mean:
    """A ratio of sums over documents.

    Attributes:
      value: the ratio; NaN where nothing was counted.
      error: its standard error; NaN with fewer than two documents.
      documents: D, those that have something to count.
    """

    value: float
    error: float
    documents: int

    def half_width(self, level: float) -> float:
        """Half the width of the interval that holds ``level`` of the probability; NaN with fewer than two documents."""
        if self.documents < 2:
            return math.nan
        return float(student_t.ppf((1 + level) / 2, self.documents - 1)) * self.error

    def interval(self, level: float) -> tuple[float, float]:
        """Its ends."""
        half = self.half_width(level)
        return self.value - half, self.value + half


def ratio(y_D: np.ndarray, x_D: np.ndarray) -> Mean:
    """The ratio of sums over documents, see above. Documents with ``x = 0`` are none.

    Args:
      y_D: sums of what is averaged, a document each; float64.
      x_D: what it is divided by, at least 0.
    """
    counted = x_D > 0
    y, x = y_D[counted].astype(np.float64), x_D[counted].astype(np.float64)
    documents = int(counted.sum())
    if not documents:
        return Mean(math.nan, math.nan, 0)
    value = float(y.sum() / x.sum())
    if documents == 1:
        return Mean(value, math.nan, 1)
    squares = float(np.sum((y - value * x) ** 2))
    return Mean(value, math.sqrt(documents / (documents - 1) * squares) / float(x.sum()), documents)
