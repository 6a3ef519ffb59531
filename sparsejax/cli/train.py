"""``sparsejax train``: train a model, or continue the run in --workdir."""

from __future__ import annotations

import argparse

from rich.console import Console

from sparsejax.cli.config_flag import join_values, load_run
from sparsejax.cli.flags import FlagParser
from sparsejax.cli.summary import print_summary
from sparsejax.config import ConfigError

# Columns of a log file, where there is no terminal to ask.
LOG_WIDTH = 120


def main(argv: list[str]) -> int:
    """Train; returns 0 finished, 4 diverged, 75 preempted and saved, 130 stopped by Ctrl-C and saved.

    A process of several that loses the others exits with 76: see ``training.lost_peers``.
    """
    flags, overrides = _parser().parse_known_args(argv)
    run = load_run(flags.config, join_values(overrides))
    if flags.watchdog < 0:
        raise ConfigError(f"--watchdog={flags.watchdog:g}: must be a number of seconds, or 0 for none")

    # Imported after the config was checked, so that a typo is answered before jax has started.
    from sparsejax.interop.dense_checkpoint import open_checkpoint
    from sparsejax.training.cluster import Launch, joined
    from sparsejax.training.loop import train
    from sparsejax.training.workdir import run_directory

    launch = Launch(
        flags.distributed,
        flags.coordinator,
        flags.num_processes,
        flags.process_id,
        flags.init_timeout,
        flags.heartbeat_timeout,
    )
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    with joined(launch) as cluster:
        workdir = run_directory(flags.workdir)
        outcome = train(
            run,
            workdir,
            extend=flags.extend,
            console=console,
            watchdog=flags.watchdog,
            trunks=[run_directory(name) for name in flags.trunk.split(",") if name],
            opens=open_checkpoint,
        )
        if outcome.exit_code == 0 and cluster.writes:
            print_summary(console, workdir, outcome)
    return outcome.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        "train",
        "Train a model, or continue the run in --workdir where it stopped.",
        "Any setting of the config can be given as --config.section.key=value.",
    )
    parser.add_argument("--config", required=True, help="configs/<file>.py, or configs/<file>.py:key=value,...")
    parser.add_argument("--workdir", required=True, help="run directory, or gs://bucket/run; made, or continued")
    parser.add_argument("--extend", action="store_true", help="allow more steps than the run was started with")
    parser.add_argument(
        "--trunk",
        default="",
        metavar="DIR",
        help="directories of other runs, comma-separated: start from the last checkpoint of theirs that this run would "
        "pass through, bit for bit, such as before the decay of a shorter run",
    )
    parser.add_argument(
        "--watchdog",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="dump all stacks when no step finished for so long (an hour for the first), and end a process of several "
        "after twice that; 0 never (default: %(default)g)",
    )
    group = parser.add_argument_group("several processes", "Every process gets the same flags but for --process_id.")
    group.add_argument(
        "--distributed", action="store_true", help="join those that a TPU pod, SLURM, Kubernetes or Open MPI started"
    )
    group.add_argument("--coordinator", default="", metavar="HOST:PORT", help="where process 0 listens")
    group.add_argument("--num_processes", type=int, metavar="N", help="how many processes there are")
    group.add_argument("--process_id", type=int, metavar="I", help="which of them this is, from 0")
    group.add_argument(
        "--init_timeout",
        type=int,
        default=300,
        metavar="SECONDS",
        help="wait so long for all of them at the start (default: %(default)s)",
    )
    group.add_argument(
        "--heartbeat_timeout",
        type=int,
        default=100,
        metavar="SECONDS",
        help="a process that is silent for so long is lost, and ends the others (default: %(default)s)",
    )
    return parser
