"""A whole study of some runs: the fit, its certainty, its errors on runs left out, and other laws beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.scaling.fit import Fit, fit
from sparsejax.scaling.fit_report import Certainty, Findings, Term
from sparsejax.scaling.held_out import compare, held_out
from sparsejax.scaling.intervals import Bootstrap, bootstrap, centred, diagnostics, profile
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.rows import Table
from sparsejax.scaling.stages import SPARSE_REPEATED_STAGES, fit_jointly


def study(
    laws: Sequence[Law],
    table: Table,
    *,
    fixed: Mapping[str, float],
    free_held: Sequence[str],
    delta: float | None,
    staged: bool,
    starts: int | None,
    samples: int,
    level: float,
    seed: int,
    command: str,
) -> Findings:
    """Fit the first law, with intervals and diagnostics; the others only beside it, at its delta.

    Args:
      laws: at least one.
      table: the runs.
      fixed: parameters of the first law that keep a value.
      free_held: parameters that the first law holds and that are to be fitted.
      delta: of the Huber loss, None to take it from the residuals.
      staged: fit the stages of the sparse law's paper first, then all at once from there.
      starts: number of starts, None for enough.
      samples: bootstrap refits.
      level: of the intervals.
      seed: of starts, refits and folds.
      command: how the user asked, for the report.

    Raises:
      ConfigError: the data cannot say what is asked, or stages were asked of a law that has none.
    """
    law = laws[0]
    _check_one_kind(law, laws[1:])
    if not staged:
        found = fit(law, table, fixed=fixed, free_held=free_held, delta=delta, starts=starts, seed=seed)
    elif law.name != "sparse_repeated" or fixed:
        raise ConfigError("--stages: only sparse_repeated has stages, and they fix what they fix; leave out --fix")
    else:
        found = fit_jointly(law, table, SPARSE_REPEATED_STAGES, delta, seed)
        # The report is of the runs as they are, not of the unlimited text the stages assume.
        found = dataclasses.replace(found, table=table)
    refits = bootstrap(found, samples, seed)
    certainty = {name: _certainty(found, refits, name, level) for name in found.free}
    comparison = None
    if len(laws) > 1:
        others = [fit(other, found.table, delta=found.delta, starts=starts, seed=seed) for other in laws[1:]]
        comparison = compare([found, *others], seed)
    return Findings(
        fit=found,
        bootstrap=refits,
        certainty=certainty,
        level=level,
        diagnostics=diagnostics(found),
        held_out=held_out(found, seed),
        comparison=comparison,
        command=command,
    )


def _check_one_kind(law: Law, others: Sequence[Law]) -> None:
    for other in others:
        if other.residual != law.residual:
            raise ConfigError(
                f"--against={other.name}: has residuals in {other.residual_unit}, law {law.name} in "
                f"{law.residual_unit}; compare laws of one kind"
            )


def _certainty(found: Fit, refits: Bootstrap, name: str, level: float) -> Certainty:
    """Both intervals of a parameter, and those of the whole term of a coefficient."""
    parameter = next(one for one in found.law.parameters if one.name == name)
    term = None
    if parameter.centred:
        at = {column: float(np.exp(np.mean(np.log(found.table.columns[column])))) for column, _, _ in parameter.centred}
        value = float(np.exp(centred(found, name, found.z)))
        term = Term(at, value, refits.interval(name, level, term=True), profile(found, name, level, term=True))
    return Certainty(refits.interval(name, level), profile(found, name, level), term)
