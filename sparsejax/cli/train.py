"""``sparsejax train``: train a model, or continue the run in --workdir."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from sparsejax.cli.config_flag import join_values, load_run
from sparsejax.cli.flags import FlagParser
from sparsejax.cli.summary import print_summary

# Columns of a log file, where there is no terminal to ask.
LOG_WIDTH = 120


def main(argv: list[str]) -> int:
    """Train; returns 0 finished, 4 diverged, 75 preempted and saved, 130 stopped by Ctrl-C and saved."""
    parser = FlagParser(
        "train",
        "Train a model, or continue the run in --workdir where it stopped.",
        "Any setting of the config can be given as --config.section.key=value.",
    )
    parser.add_argument("--config", required=True, help="configs/<file>.py, or configs/<file>.py:key=value,...")
    parser.add_argument("--workdir", required=True, type=Path, help="run directory; made, or continued")
    parser.add_argument("--extend", action="store_true", help="allow more steps than the run was started with")
    flags, overrides = parser.parse_known_args(argv)
    run = load_run(flags.config, join_values(overrides))

    # Imported after the config was checked, so that a typo is answered before jax has started.
    from sparsejax.training.loop import train

    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    outcome = train(run, flags.workdir, extend=flags.extend, console=console)
    if outcome.exit_code == 0:
        print_summary(console, flags.workdir, outcome)
    return outcome.exit_code
