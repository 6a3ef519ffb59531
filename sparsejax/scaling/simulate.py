"""Tables drawn from a law whose answer is known: for checking fits, planning studies, and notebooks without data."""

from __future__ import annotations

import numpy as np

from sparsejax.scaling.laws.law import Columns, Law, Values
from sparsejax.scaling.rows import Table


def simulated(
    law: Law, noise: float = 0.0, seed: int = 0, columns: Columns | None = None, values: Values | None = None
) -> Table:
    """The law's losses on its own design, or on other columns, with normal noise of log loss (of a linear law's loss).

    Args:
      law: the law.
      noise: standard deviation.
      seed: of the noise.
      columns: runs, by the names the law reads; columns it does not read are 1.
      values: parameters; None takes the law's example.
    """
    given = dict(law.design if columns is None else columns)
    R = len(next(iter(given.values())))
    given = {name: np.ones(R) for name in "NDUS"} | given
    exact = law.loss(law.example if values is None else values, given)
    drawn = noise * np.random.default_rng(seed).standard_normal(R)
    loss = law.loss_of(law.compared(exact) + drawn)
    return Table(given, loss, np.arange(R), tuple(f"run {i}" for i in range(R)), "total", f"the design of {law.name}")
