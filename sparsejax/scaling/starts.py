"""Where searches start, and the centred coordinates they move in; see ``solver``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.solver import transformed


def basis_of(law: Law, columns: Mapping[str, np.ndarray], kept: Mapping[str, float]) -> np.ndarray:
    """``T [P, P]`` from centred to transformed coordinates; parameters that are kept have rows and columns of 0."""
    T = np.eye(len(law.names))
    for i, parameter in enumerate(law.parameters):
        for column, exponent, factor in parameter.centred:
            T[i, law.names.index(exponent)] -= factor * np.mean(np.log(columns[column]))
    moves = np.array([name not in kept for name in law.names])
    return np.where(moves[:, None] & moves[None, :], T, 0.0)


def drawn_starts(
    law: Law, columns: Mapping[str, np.ndarray], kept: Mapping[str, float], count: int, seed: int
) -> np.ndarray:
    """Starts ``[count, P]`` in transformed coordinates: a Latin hypercube over the ranges of the parameters."""
    rng = np.random.default_rng(seed)
    centred = np.empty((count, len(law.names)))
    for i, one in enumerate(law.parameters):
        low, high = (np.log([one.low - one.least, one.high - one.least])) if one.positive else (one.low, one.high)
        centred[:, i] = low + (high - low) * (rng.permutation(count) + rng.random(count)) / count
    # What is kept takes its place first, because coefficients follow their exponents.
    for name, value in kept.items():
        i = law.names.index(name)
        centred[:, i] = transformed(law.parameters[i], value)
    z = centred @ basis_of(law, columns, {}).T
    for name in kept:
        z[:, law.names.index(name)] = centred[:, law.names.index(name)]
    return z
