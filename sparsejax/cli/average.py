"""``sparsejax average``: the mean of runs that share a topology (sparse model soups)."""

from __future__ import annotations

import sys

from sparsejax.cli.console import plain_console
from sparsejax.cli.flags import FlagParser, run_directories
from sparsejax.cli.streams import display_of


def main(argv: list[str]) -> int:
    """Average, evaluate and write a run directory; returns 0."""
    parser = FlagParser(
        "average",
        "Average the weights of finished runs that share a topology bit for bit, into a new run directory.",
        "Ingredients: train --config.topology.method=static with equal seeds.topology and seeds.init, and another "
        "seeds.data, optim.lr or optim.weight_decay for each. 'evaluate' and 'generate' read the result.",
    )
    parser.add_argument("--runs", required=True, help="run directories, comma-separated, at least two")
    parser.add_argument("--out", required=True, help="new run directory, also gs://bucket/run")
    parser.add_argument("--shares", help="parts of the runs in the mean, comma-separated; equal by default")
    parser.add_argument("--greedy", action="store_true", help="take in only runs that do not make the mean worse")
    parser.add_argument("--weights", choices=("raw", "ema"), default="raw", help="of each run: as trained, or averaged")
    parser.add_overwrite()
    flags = parser.parse_args(argv)
    try:
        shares = None if flags.shares is None else [float(part) for part in flags.shares.split(",")]
    except ValueError:
        parser.error(f"--shares={flags.shares}: must be numbers, comma-separated")

    from sparsejax.training.average import average_runs
    from sparsejax.training.workdir import run_directory

    console = plain_console(display_of(sys.stdout))

    def notice(text: str) -> None:
        console.print(text, soft_wrap=True)

    names = [run_directory(name, "runs") for name in run_directories("runs", flags.runs)]
    average_runs(
        names,
        flags.out,
        notice,
        shares=shares,
        greedy=flags.greedy,
        weights=flags.weights,
        overwrite=flags.overwrite,
    )
    return 0
