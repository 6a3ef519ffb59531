"""``sparsejax sweep``: every point of an ablation file with every seed, and one table of what came out."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from sparsejax.cli.config_flag import join_values, load_module, load_run, split_config
from sparsejax.cli.flags import FlagParser, whole_numbers
from sparsejax.cli.streams import display_of
from sparsejax.config import ConfigError
from sparsejax.files.outputs import Outputs
from sparsejax.planning import plan, points, runner, tables
from sparsejax.training.workdir import claimed, run_directory


def main(argv: list[str]) -> int:
    """Run, print or collect a sweep; returns 0 done, 1 some runs failed, 75 or 130 stopped and saved."""
    parser = FlagParser(
        "sweep",
        "Train every point of an ablation file with every seed; finished runs are skipped, broken ones continued.",
        "Any setting that the points leave alone can be given as --config.section.key=value.",
    )
    parser.add_argument("--config", required=True, help="configs/ablations/<question>.py")
    parser.add_argument("--workdir", required=True, help="directory of the sweep; made, or continued")
    parser.add_argument("--seeds", default="", help="comma-separated, instead of the file's own")
    parser.add_argument("--only", default="", help="comma-separated names of points; the others are left alone")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, one a line, and do nothing")
    parser.add_argument("--collect", action="store_true", help="write the tables from what is there, train nothing")
    flags, rest = parser.parse_known_args(argv)
    settings = tuple(join_values(rest))
    workdir = run_directory(flags.workdir)
    if not isinstance(workdir, Path):
        raise ConfigError(f"--workdir={flags.workdir}: a sweep is of this machine; name a directory")

    module = load_module(split_config(flags.config)[0])
    for name in ("points", "SEEDS"):
        if not hasattr(module, name):
            raise ConfigError(f"--config={flags.config}: defines no {name}, so it is no sweep; see configs/ablations/")
    found = points.read_points(module.points())
    chosen = points.select(found, flags.only) if flags.only else found
    seeds = whole_numbers("seeds", flags.seeds) if flags.seeds else tuple(module.SEEDS)
    plan.check_flags(settings, found)
    # A sweep's own tables are made anew from what its runs hold; a directory of anything else is refused below.
    out = Outputs(overwrite=True).files("workdir", workdir, tables.FILES)
    sweep = plan.recorded(workdir, plan.Sweep(flags.config, settings, found, seeds))
    undone: dict[str, None] = {}
    runs = sweep.runs(workdir, lambda given: load_run(flags.config, given, lambda line: undone.setdefault(line)))
    for line in [*undone, *plan.idle_flags(settings, runs)]:
        # A sweep from before this was refused goes on as it was.
        if line in undone and not (workdir / plan.RECORD).exists():
            raise ConfigError(line)
        print(line, file=sys.stderr)
    if getattr(module, "SHARE_TRUNKS", False):
        runs = plan.with_trunks(runs)
    due = [run for run in runs if run.point in chosen and run.seed in seeds]
    if flags.dry_run:
        print("\n".join(plan.train_command(run, flags.config) for run in due))
        return 0
    plan.check_directories(runs)
    # What the files keep is made even if nobody can see it.
    tell = partial(print, file=display_of(sys.stdout), flush=True)
    code = 0
    if not flags.collect:
        with claimed(workdir):
            plan.write_record(workdir, sweep)
            code = runner.run_sweep(due, tell)
    out.write(tables.collect(runs))
    tell(f"tables: {', '.join(str(workdir / name) for name in tables.FILES)}")
    return code
