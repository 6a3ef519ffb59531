"""What data cannot say: fits that are refused, with the reason, before anything is minimised."""

from __future__ import annotations

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.rows import Table

# A power with a constant beside it needs three different values of what it is a power of.
_VALUES_OF_A_POWER = 3
_NAMES = {"N": "parameters", "D": "tokens", "U": "unique tokens", "N_bar": "mean active parameters", "x": "x"}


def check_identifiable(law: Law, table: Table, free: tuple[str, ...], with_prior: set[str]) -> None:
    """Refuse tables from which the free parameters cannot follow; a parameter with a prior asks nothing of the data.

    Raises:
      ConfigError: a column is missing, has zeros or too few values, runs are too few, or a loss has no logarithm.
    """
    where = f"law {law.name} on {table.source}:"
    asked = [name for name in free if name not in with_prior]
    for name in law.columns:
        if name not in table.columns:
            raise ConfigError(f"{where} it reads {_NAMES.get(name, name)} ({name}), which these runs do not state")
        if not np.all(np.isfinite(table.columns[name]) & (table.columns[name] > 0)):
            raise ConfigError(f"{where} {_NAMES.get(name, name)} ({name}) must be above 0 and finite in every run")
    if law.residual == "log" and not np.all(table.loss > 0):
        raise ConfigError(f"{where} a loss is not above 0, and this law is fitted to its logarithm")
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
    blind = [name for name in asked if not _matters(law, name, table)]
    if blind:
        raise ConfigError(f"{where} no run depends on {', '.join(blind)} ({_sameness(table)}); fix them")


def _matters(law: Law, name: str, table: Table) -> bool:
    """Whether a parameter changes the loss of any of the runs, with the others at any of a few values."""
    columns = {column: table.columns[column] for column in law.columns}
    for shift in (0.0, 0.1, -0.1):
        values = {**law.held, **{key: value * (1 + shift) for key, value in law.example.items()}}
        changed = {**values, name: values[name] * 1.05 + 1e-3}
        if not np.allclose(law.loss(changed, columns), law.loss(values, columns), rtol=1e-13, atol=0):
            return True
    return False


def _sameness(table: Table) -> str:
    """What all runs have in common, as the likely reason."""
    same = [f"every run has {name}={column[0]:g}" for name, column in table.columns.items() if np.ptp(column) == 0]
    if np.all(table.columns["D"] <= table.columns["U"] * (1 + 1e-6)):
        same.append("no run repeats its tokens")
    return ", ".join(same) or "at any likely value of the others"
