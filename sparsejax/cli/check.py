"""``sparsejax check``: does a run fit a machine, what does it send, how long does it take; before booking it."""

from __future__ import annotations

import dataclasses
import sys

from sparsejax.cli.config_flag import join_values, load_run
from sparsejax.cli.console import plain_console
from sparsejax.cli.flags import FlagParser
from sparsejax.cli.streams import display_of
from sparsejax.config import ConfigError
from sparsejax.files.outputs import Outputs
from sparsejax.hardware.systems import EXAMPLES


def main(argv: list[str]) -> int:
    """Compile for a machine that need not be here and print what it needs; returns 0 fits, 3 does not."""
    parser = FlagParser(
        "check",
        "Compile the real train and rewire step for a machine that need not be here; print memory, traffic and time.",
        f"Hardware: {EXAMPLES}. TPUs need the extra 'tpu'; GPUs are arithmetic only. No data is opened. Any setting of "
        "the config can be given as --config.section.key=value.",
    )
    parser.add_argument("--config", required=True, help="configs/<file>.py, or configs/<file>.py:key=value,...")
    parser.add_argument("--hardware", required=True, help="<chip>:<shape>, or <slices>x<chip>:<shape>")
    parser.add_argument("--mesh", default="", help="<replica>x<fsdp>x<tensor>, instead of the config's")
    parser.add_argument("--search", action="store_true", help="propose the mesh")
    parser.add_argument(
        "--twin", choices=("arithmetic", "compiled", "none"), default="arithmetic", help="the dense one"
    )
    parser.add_argument("--json", help="file to write the same figures to")
    parser.add_overwrite()
    parser.add_argument("--steps", type=int, default=0, help="of the run, where the config counts epochs")
    parser.add_argument("--vocab_size", type=int, default=0, help="where it is not data.vocab_size")
    flags, overrides = parser.parse_known_args(argv)
    if (flags.mesh and flags.search) or flags.steps < 0 or flags.vocab_size < 0:
        parser.error("--mesh, --search: give one of them; --steps, --vocab_size: must be at least 0")
    inputs = [flags.config.partition(":")[0]]
    output = None if flags.json is None else Outputs(flags.overwrite, inputs).file("json", flags.json)
    run = load_run(flags.config, join_values(overrides))
    if flags.mesh:
        sizes = [int(size) if size.isdecimal() else 0 for size in flags.mesh.split("x")]
        if len(sizes) != 3 or min(sizes) < 1:
            raise ConfigError(f"--mesh={flags.mesh}: must be <replica>x<fsdp>x<tensor>, such as 1x16x4")
        mesh = dataclasses.replace(run.mesh, replica=sizes[0], fsdp=sizes[1], tensor=sizes[2])
        run = dataclasses.replace(run, mesh=mesh)

    from sparsejax.planning.check import run_check

    # What a file keeps is made even if nobody can see it.
    file = None if output is None else display_of(sys.stdout)
    console = plain_console(file)
    if not console.is_terminal:
        console = plain_console(file, width=120)
    return run_check(
        run,
        flags.hardware,
        steps=flags.steps,
        vocab_size=flags.vocab_size,
        search=flags.search,
        twin=flags.twin,
        output=output,
        console=console,
    )
