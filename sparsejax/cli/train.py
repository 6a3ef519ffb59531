"""``sparsejax train``: train a model, or continue the run in --workdir."""

from __future__ import annotations

import sys

from sparsejax.cli.config_flag import join_values, load_run
from sparsejax.cli.console import plain_console
from sparsejax.cli.flags import run_directories
from sparsejax.cli.streams import display_of
from sparsejax.cli.train_flags import parser
from sparsejax.config import ConfigError

# Columns of a log file, where there is no terminal to ask.
LOG_WIDTH = 120
# Seconds that a thread can wait.
_LONGEST = 1e9


def main(argv: list[str]) -> int:
    """Train; returns 0 finished, 4 diverged, 75 preempted and saved, 130 stopped by Ctrl-C and saved.

    A process of several that loses the others exits with 76: see ``training.lost_peers``.
    """
    flags, overrides = parser().parse_known_args(argv)
    undone: list[str] = []
    run = load_run(flags.config, join_values(overrides), undone.append)
    if not 0 <= flags.watchdog <= _LONGEST:
        raise ConfigError(f"--watchdog={flags.watchdog:g}: must be 0, for none, to {_LONGEST:g} seconds")

    # Imported after the config was checked, so that a typo is answered before jax has started.
    from sparsejax.cli.summary import print_summary
    from sparsejax.interop.dense_checkpoint import open_checkpoint
    from sparsejax.training.cluster import Launch, joined
    from sparsejax.training.interrupts import ENDING
    from sparsejax.training.loop import train
    from sparsejax.training.workdir import run_directory, started_with

    launch = Launch(
        flags.distributed,
        flags.coordinator,
        flags.num_processes,
        flags.process_id,
        flags.init_timeout,
        flags.heartbeat_timeout,
    )
    display = display_of(sys.stdout)
    console = plain_console(display)
    if not console.is_terminal:
        console = plain_console(display, width=LOG_WIDTH)
    with joined(launch) as cluster:
        workdir = run_directory(flags.workdir)
        for line in undone:
            # A run from before this was refused goes on as it was.
            if started_with(workdir) is None:
                raise ConfigError(line)
            console.print(line, highlight=False, soft_wrap=True)
        outcome = train(
            run,
            workdir,
            extend=flags.extend,
            console=console,
            watchdog=flags.watchdog,
            trunks=[
                run_directory(name, "trunk") for name in (run_directories("trunk", flags.trunk) if flags.trunk else [])
            ],
            opens=open_checkpoint,
        )
        # From here on a signal only cuts the summary short.
        ENDING.finished(outcome.exit_code, waits=cluster.count > 1)
        if outcome.exit_code == 0 and cluster.writes:
            print_summary(console, workdir, outcome)
    return outcome.exit_code
