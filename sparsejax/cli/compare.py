"""``sparsejax compare``: how far runs moved from their first weights, and whether their masks agree."""

from __future__ import annotations

import math
import sys

from sparsejax.cli.console import plain_console
from sparsejax.cli.flags import FlagParser, run_directories
from sparsejax.cli.streams import display_of
from sparsejax.files.outputs import Outputs


def main(argv: list[str]) -> int:
    """Print the report, write it to --out if asked; returns 0."""
    parser = FlagParser(
        "compare",
        "Drift of each run from its own first weights, and overlap of the masks of several runs.",
        "The first weights follow from the seeds; no file of them is needed.",
    )
    parser.add_argument("--runs", required=True, help="run directories, comma-separated; one is enough for its drift")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="a weight that moved by less did not move")
    parser.add_argument("--out", help="CSV file for the same numbers")
    parser.add_overwrite()
    flags = parser.parse_args(argv)
    if not 0 < flags.tolerance < math.inf:
        parser.error(f"--tolerance={flags.tolerance}: must be a number above 0")
    names = run_directories("runs", flags.runs)
    out = None if flags.out is None else Outputs(flags.overwrite, names).file("out", flags.out)

    from sparsejax.training.drift import agreement, drift, masks
    from sparsejax.training.drift_report import agreement_table, csv_text, drift_table
    from sparsejax.training.restore import check_runs, restore_run
    from sparsejax.training.workdir import run_directory

    # What a file keeps is made even if nobody can see it.
    console = plain_console(None if out is None else display_of(sys.stdout))

    def notice(text: str) -> None:
        console.print(text, soft_wrap=True)

    workdirs = [run_directory(name, "runs") for name in names]
    check_runs(workdirs)
    rows, found = [], []
    for name, workdir in zip(names, workdirs, strict=True):
        trained = restore_run(workdir, notice)
        rows += drift(name, trained.recipe, trained.state.params, trained.state.topology, flags.tolerance)
        found.append((name, masks(trained.recipe, trained.state.topology)))
    pairs = agreement(found)
    console.print(drift_table(rows, flags.tolerance))
    if pairs:
        console.print(agreement_table(pairs))
    if out is not None:
        out.write(csv_text([*rows, *pairs]))
        notice(f"wrote {out.path}")
    return 0
