"""``sparsejax branch``: what the rewirings of a run cost, split into drop damage and cold start."""

from __future__ import annotations

import sys

from sparsejax.cli.console import plain_console
from sparsejax.cli.flags import FlagParser, whole_numbers
from sparsejax.cli.streams import display_of
from sparsejax.files.outputs import Outputs


def main(argv: list[str]) -> int:
    """Run the branch test, write its CSV file and print what follows from it; returns 0."""
    parser = FlagParser(
        "branch",
        "From the state before a rewiring, the same batches again and again: without the rewiring, with the drop "
        "only, and with the whole rewiring, in each optimizer form.",
        "Each checkpoint is first trained on to the next rewiring. To have several, train with equal "
        "--config.train.checkpoint_every and --config.train.keep_every.",
    )
    parser.add_argument("--workdir", required=True, help="run directory; nothing in it changes")
    parser.add_argument("--steps", type=int, default=40, help="batches of every branch")
    parser.add_argument("--at", default="", help="steps of the checkpoints, comma-separated; all of them by default")
    parser.add_argument("--saturate", type=int, default=0, help="updates to add to all ages: late in a run, 20000")
    parser.add_argument("--out", help="CSV file, one row a step of a branch")
    parser.add_overwrite()
    flags = parser.parse_args(argv)
    if not 1 <= flags.steps < 2**31 or not 0 <= flags.saturate <= 10**9:
        parser.error(
            f"--steps={flags.steps}, --saturate={flags.saturate}: must be from 1 to 2**31 - 1, and from 0 to 10**9"
        )
    if flags.at and not all(part.isascii() and part.isdigit() for part in flags.at.split(",")):
        parser.error(f"--at={flags.at}: must be steps, such as 99,198")
    out = None if flags.out is None else Outputs(flags.overwrite, [flags.workdir]).file("out", flags.out)

    from sparsejax.training.branch import branch_run
    from sparsejax.training.branch_report import branch_table
    from sparsejax.training.branch_rows import rows_text
    from sparsejax.training.workdir import run_directory

    # What a file keeps is made even if nobody can see it.
    console = plain_console(None if out is None else display_of(sys.stdout))

    def notice(text: str) -> None:
        console.print(text, soft_wrap=True)

    at = whole_numbers("at", flags.at) if flags.at else ()
    rows = branch_run(run_directory(flags.workdir), steps=flags.steps, at=at, saturated=flags.saturate, notice=notice)
    console.print(branch_table(rows))
    if out is not None:
        out.write(rows_text(rows))
        notice(f"wrote {out.path}")
    return 0
