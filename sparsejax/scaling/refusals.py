"""What data cannot say: fits that are refused, with the reason, before anything is minimised."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.files.text import one_line
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.rows import Table
from sparsejax.scaling.solver import to_natural
from sparsejax.scaling.starts import basis_of, drawn_starts

# A power with a constant beside it needs three different values of what it is a power of.
_VALUES_OF_A_POWER = 3
_NAMES = {
    "N": "parameters",
    "D": "tokens",
    "U": "unique tokens",
    "S": "densities",
    "N_bar": "mean active parameters",
    "x": "x",
}
# Places of the parameters at which the runs are asked; a direction that none of them shows is not in the runs.
_PLACES = 16
# Singular values below this share of the largest are rounding.
_RANK = 1e-6
_STEP = 1e-5


def check_fixed(law: Law, kept: Mapping[str, float]) -> None:
    """Refuse values that a parameter cannot keep.

    Raises:
      ConfigError: one that is not finite, below its least, or of another sign than the law gives the parameter; or
        nothing is left to fit.
    """
    for one in law.parameters:
        if one.name not in kept:
            continue
        value, told = kept[one.name], f"--fix={one.name}={kept[one.name]:g}: law {law.name}: must be"
        if not abs(value) < float("inf"):
            raise ConfigError(f"{told} a finite number")
        if one.positive and value < one.least:
            raise ConfigError(f"{told} at least {one.least:g}")
        # Exponents have only starts above 0: with the other sign larger runs would be worse ones.
        if not one.positive and one.low > 0 and value <= 0:
            raise ConfigError(f"{told} above 0")
    if all(name in kept for name in law.names):
        raise ConfigError(f"--fix: every parameter of law {law.name} is fixed; leave one free")


def check_identifiable(law: Law, table: Table, kept: Mapping[str, float], with_prior: set[str]) -> None:
    """Refuse tables from which the free parameters cannot follow; a parameter with a prior asks nothing of the data.

    Raises:
      ConfigError: a column is missing, has zeros or too few values, runs are too few, losses are equal or have no
        logarithm, or parameters that the runs cannot tell apart.
    """
    where = f"law {law.name} on {table.source}:"
    asked = [name for name in law.names if name not in kept and name not in with_prior]
    _check_columns(law, table, where)
    runs = len(np.unique(table.groups))
    if runs < len(asked) + 1:
        raise ConfigError(f"{where} {runs} different runs cannot identify {len(asked)} parameters; fix some of them")
    for parameter in law.parameters:
        for column, exponent, _ in parameter.centred:
            values = np.unique(np.round(np.log(table.columns[column]), 6))
            if exponent in asked and len(values) < _VALUES_OF_A_POWER:
                raise ConfigError(
                    f"{where} {len(values)} different values of {_NAMES.get(column, column)} ({column}) cannot "
                    f"identify the exponent {exponent}: three are the least; or fix {exponent}"
                )
    blind = [name for name in asked if not _matters(law, name, table, kept)]
    if blind:
        raise ConfigError(f"{where} no run depends on {', '.join(blind)} ({_sameness(law, table)}); fix them")
    epochs = table.columns["D"] / table.columns["U"]
    repeated = [name for name in law.repetition if name in asked]
    if repeated and np.ptp(epochs) <= 1e-6 * epochs.max():
        raise ConfigError(
            f"{where} every run has the same number of epochs ({epochs[0]:g}), which cannot tell what repetition "
            f"does; fix {', '.join(repeated)}, or add runs of other numbers of epochs"
        )
    alike = _told_apart(law, table, kept, asked)
    if alike:
        raise ConfigError(
            f"{where} these runs cannot tell {', '.join(alike)} apart ({_sameness(law, table)}); fix some of them, "
            "or add runs that differ"
        )


def _check_columns(law: Law, table: Table, where: str) -> None:
    for name in law.columns:
        if name not in table.columns:
            raise ConfigError(f"{where} it reads {_NAMES.get(name, name)} ({name}), which these runs do not state")
        wrong = np.flatnonzero(~(np.isfinite(table.columns[name]) & (table.columns[name] > 0)))
        if wrong.size:
            run = one_line(table.names[wrong[0]])
            raise ConfigError(f"{where} run {run}: {_NAMES.get(name, name)} ({name}) must be above 0 and finite")
    low = np.flatnonzero(~(table.loss > 0))
    if law.residual == "log" and low.size:
        run = f"run {one_line(table.names[low[0]])}: loss={table.loss[low[0]]:g}"
        raise ConfigError(f"{where} {run} is not above 0, and this law is fitted to its logarithm")
    if np.ptp(table.loss) <= 1e-9 * np.max(np.abs(table.loss)):
        raise ConfigError(f"{where} every run has the loss {table.loss[0]:g}: equal losses say nothing of a law")


def _matters(law: Law, name: str, table: Table, kept: Mapping[str, float]) -> bool:
    """Whether a parameter changes the loss of any of the runs, with the others at any of a few values."""
    columns = {column: table.columns[column] for column in law.columns}
    for shift in (0.0, 0.1, -0.1):
        values = {**law.held, **{key: value * (1 + shift) for key, value in law.example.items()}, **kept}
        changed = {**values, name: values[name] * 1.05 + 1e-3}
        with np.errstate(all="ignore"):
            same = np.allclose(law.loss(changed, columns), law.loss(values, columns), rtol=1e-13, atol=0)
        if not same:
            return True
    return False


def _told_apart(law: Law, table: Table, kept: Mapping[str, float], asked: list[str]) -> list[str]:
    """Parameters whose effects on these runs are the same, wherever the parameters are; empty where each is seen.

    Such a direction is a singular value of 0 of the Jacobian of the losses, with columns of unit length, in centred
    coordinates.
    """
    which = [law.names.index(name) for name in asked]
    # What is not asked for but free, under a prior, stays where a start puts it.
    T = basis_of(law, table.columns, {name: 0.0 for name in law.names if name not in asked})
    best, alike = 0.0, list(asked)
    for z in drawn_starts(law, table.columns, kept, _PLACES, 0):
        J = np.stack([_slope(law, table, z, T[:, i]) for i in which], axis=1)
        length = np.linalg.norm(J, axis=0)
        if not np.isfinite(J).all() or not length.all():
            continue
        _, singular, rows = np.linalg.svd(J / length, full_matrices=False)
        if singular[-1] > _RANK * singular[0]:
            return []
        if singular[-1] >= best:
            unseen = np.abs(rows[singular <= _RANK * singular[0]]).max(axis=0)
            best, alike = singular[-1], [name for name, part in zip(asked, unseen, strict=True) if part > 0.05]
    return alike


def _slope(law: Law, table: Table, z: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Change of every loss ``[R]`` along a direction of the coordinates."""
    columns = {column: table.columns[column] for column in law.columns}
    with np.errstate(all="ignore"):
        up, down = (law.loss(to_natural(law, z + sign * _STEP * direction), columns) for sign in (1, -1))
        return np.asarray((up - down) / (2 * _STEP))


def _sameness(law: Law, table: Table) -> str:
    """What all runs have in common, as the likely reason."""
    read = {name: table.columns[name] for name in law.columns}
    same = [f"every run has {name}={column[0]:g}" for name, column in read.items() if np.ptp(column) == 0]
    epochs = table.columns["D"] / table.columns["U"]
    if np.all(epochs <= 1 + 1e-6):
        same.append("no run repeats its tokens")
    elif np.ptp(epochs) <= 1e-6 * epochs[0]:
        same.append(f"epochs are {epochs[0]:g} in every run")
    densities = np.unique(table.columns["S"])
    if 1 < len(densities) <= _VALUES_OF_A_POWER:
        same.append(f"there are {len(densities)} densities")
    return ", ".join(same) or "at any likely value of the others"
