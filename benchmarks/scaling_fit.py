"""Scaling-law fits beside the procedure that papers publish: L-BFGS from every point of a grid, delta 1e-3.

    python -m benchmarks.scaling_fit --case chinchilla --rows chinchilla_fig4.csv
    python -m benchmarks.scaling_fit --case sparse_repeated

Ours is timed from its first call, compilation included. The published way is timed over a few of its starts, drawn over
its grid's ranges, and multiplied up to its number of starts: scipy's L-BFGS-B with finite differences, as most of the
published code has it, on the same law and runs. Without --rows the runs are drawn from the law with 0.5 % noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from scipy.optimize import minimize

from benchmarks.measuring import conditions, table_line, write_json
from sparsejax.scaling.fit import PAPERS_DELTA, Fit, fit
from sparsejax.scaling.intervals import bootstrap
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.laws.registry import LAWS
from sparsejax.scaling.rows import table_of
from sparsejax.scaling.simulate import simulated
from sparsejax.scaling.solver import huber, residuals
from sparsejax.scaling.stages import SPARSE_REPEATED_STAGES, fit_stages, loosened
from sparsejax.scaling.starts import drawn_starts
from sparsejax.scaling.tables import read_rows

# Starts of the published procedures: Epoch's refit of Chinchilla, and the four stages of arXiv 2606.01155.
PUBLISHED_STARTS = {"chinchilla": (4500,), "sparse_repeated": (400, 125, 100, 625)}
_NOISE = 0.005


@dataclasses.dataclass(frozen=True)
class Row:
    """One fit. Seconds of the published way are those of the starts that were run, times all starts over those."""

    fit: str
    runs: int
    free: int
    objective: float
    published_objective: float
    published_starts: int
    published_seconds: float


def parse_arguments() -> argparse.Namespace:
    """The command line; a bad flag exits with 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=tuple(PUBLISHED_STARTS), default="chinchilla")
    parser.add_argument("--rows", type=Path, help="a CSV table that sparsejax.scaling.tables reads")
    parser.add_argument("--timed-starts", type=int, default=8, help="starts of the published way that are run")
    parser.add_argument("--bootstrap", type=int, default=1000, help="refits; 0 makes none")
    parser.add_argument("--json", default="", help="file to write the rows and the conditions to")
    arguments = parser.parse_args()
    if arguments.timed_starts < 1 or arguments.bootstrap < 0:
        parser.error("--timed-starts must be at least 1, --bootstrap at least 0")
    return arguments


def main() -> None:
    """Fit both ways, print a table and the seconds of ours."""
    arguments = parse_arguments()
    law = LAWS[arguments.case]
    table = (
        simulated(law, _NOISE) if arguments.rows is None else table_of(read_rows(arguments.rows), arguments.rows.name)
    )
    wall, processor = time.perf_counter(), time.process_time()
    if law.name == "sparse_repeated":
        fits = fit_stages(law, table, SPARSE_REPEATED_STAGES)
        objectives = loosened(law, table, SPARSE_REPEATED_STAGES, fits).objectives
    else:
        fits = (fit(law, table, delta=PAPERS_DELTA),)
        objectives = (fits[0].objective,)
    seconds = {"fit": (time.perf_counter() - wall, time.process_time() - processor)}
    if arguments.bootstrap:
        wall, processor = time.perf_counter(), time.process_time()
        bootstrap(fits[-1], arguments.bootstrap)
        seconds["bootstrap"] = (time.perf_counter() - wall, time.process_time() - processor)
    rows = [
        published_way(found, starts, arguments.timed_starts)
        for found, starts in zip(fits, PUBLISHED_STARTS[arguments.case], strict=True)
    ]
    print(f"{law.name}: {len(table)} runs of {table.source}")
    print(table_line([field.name for field in dataclasses.fields(Row)]))
    print(table_line(["---"] * len(dataclasses.fields(Row))))
    for row in rows:
        print(table_line([f"{cell:.7g}" if isinstance(cell, float) else cell for cell in dataclasses.astuple(row)]))
    print(f"ours, objectives: {', '.join(f'{objective:.6g}' for objective in objectives)}")
    for name, (wall, processor) in seconds.items():
        print(f"ours, {name}: {wall:.2f} s, {processor:.2f} processor seconds, compilation included")
    print(f"published way, all starts: {sum(row.published_seconds for row in rows):.0f} processor seconds")
    if arguments.json:
        write_json(arguments.json, conditions(arguments) | {"seconds": seconds}, rows)


def published_way(found: Fit, starts: int, timed: int) -> Row:
    """The same fit by L-BFGS-B with finite differences from a few starts; parameters that are not free stay."""
    law, problem = found.law, found.problem
    free = [law.names.index(name) for name in found.free]
    kept = {name: value for name, value in found.values.items() if name not in found.free}
    z0 = drawn_starts(law, found.table.columns, kept, timed, seed=1)
    processor, best = time.process_time(), np.inf
    for start in z0:
        # A start may wander to where the law has no finite loss; the published code minimises on regardless.
        with np.errstate(all="ignore"):
            ended = minimize(
                _objective(law, problem.columns, problem.target, start, free), start[free], method="L-BFGS-B"
            )
        best = min(best, float(ended.fun)) if np.isfinite(ended.fun) else best
    seconds = (time.process_time() - processor) * starts / timed
    return Row(found.table.source, len(found.table), len(free), found.objective, best, starts, seconds)


def _objective(
    law: Law, columns: Mapping[str, np.ndarray], target: np.ndarray, start: np.ndarray, free: list[int]
) -> Callable[[np.ndarray], float]:
    def objective(x: np.ndarray) -> float:
        z = start.copy()
        z[free] = x
        return float(np.sum(huber(residuals(law, z, columns, target), PAPERS_DELTA)))

    return objective


if __name__ == "__main__":
    # Fits are float64 on the host; no accelerator is looked for.
    jax.config.update("jax_platforms", "cpu")
    main()
