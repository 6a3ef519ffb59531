"""The flags of ``sparsejax train``, those of the config apart."""

from __future__ import annotations

import argparse

from sparsejax.cli.flags import FlagParser


def parser() -> argparse.ArgumentParser:
    """The parser; settings of the config are what it leaves over."""
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
