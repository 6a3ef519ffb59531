"""The launch command of every run of a sweep: ``python -m launch.sweep --on=tpu ... [-- flags of the launcher]``.

``sparsejax sweep --dry-run`` expands the points of an ablation file; each of its lines becomes one command here. Runs
go where ``sparsejax sweep`` would put them, so that ``sparsejax sweep --collect`` makes the tables of them.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Sequence

from launch.exit_codes import FAILED, FINISHED, INPUT, LaunchError, answer
from launch.flags import Parser, joined
from launch.job import is_remote
from launch.shell import Shell, settle_output

LAUNCHERS = ("tpu", "gke", "xpk", "slurm", "local")
# Directory that stands for one in object storage while the points are expanded.
_STAND_IN = "sweep-workdir"
_LONGEST = 36


def main(argv: Sequence[str] | None = None) -> int:
    """Print one command a run; returns an exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    settle_output()
    split = arguments.index("--") if "--" in arguments else len(arguments)
    try:
        flags = _parser().parse_args(arguments[:split])
        extra = [f"--{name}={value}" for name, value in (("seeds", flags.seeds), ("only", flags.only)) if value]
        further = joined(arguments[split + 1 :])
        settings = [flag for flag in further if flag.startswith("--config.")]
        own = [flag for flag in further if not flag.startswith("--config.")]
        workdir = flags.workdir.rstrip("/")
        for run in expand(Shell(poll=0), flags.config, workdir, [*extra, *settings]):
            print(shlex.join(launch_command(flags.on, flags.name, workdir, run, own)))
    except (LaunchError, OSError) as error:
        return answer(error)
    return FINISHED


def expand(shell: Shell, config: str, workdir: str, flags: Sequence[str]) -> list[list[str]]:
    """The flags of ``sparsejax train`` for every run of a sweep.

    Raises:
      LaunchError: the sweep was refused.
    """
    # The record of a sweep is a local file: a sweep in object storage is expanded as one that is new.
    local = _STAND_IN if is_remote(workdir) else workdir
    call = ["sparsejax", "sweep", f"--config={config}", f"--workdir={local}", *flags, "--dry-run"]
    done = shell.run(call)
    if done.code:
        reason = done.err.strip().removeprefix("sparsejax: ")
        raise LaunchError(reason or "sparsejax sweep failed", INPUT if done.code == INPUT else FAILED)
    runs = [shlex.split(line)[2:] for line in done.out.splitlines() if line.startswith("sparsejax train ")]
    return [[_moved(flag, local, workdir) for flag in run] for run in runs]


def launch_command(launcher: str, name: str, workdir: str, run: Sequence[str], own: Sequence[str]) -> list[str]:
    """The command that launches one run; ``own``: flags for the launcher."""
    where = next(flag for flag in run if flag.startswith("--workdir=")).removeprefix("--workdir=")
    config = next(flag for flag in run if flag.startswith("--config="))
    settings = [flag for flag in run if flag.startswith("--config.")]
    if launcher == "slurm":
        return ["sbatch", *own, "launch/slurm.sbatch", config, f"--workdir={where}", *settings]
    if launcher == "local":
        return ["launch/local.sh", *own, "--", config, f"--workdir={where}", *settings]
    named = run_name(name, where.removeprefix(workdir))
    # These take the compile cache as a flag of their own, to see first that it can be written.
    caches = [flag.replace("--config.train.compile_cache", "--compile-cache") for flag in settings if _is_cache(flag)]
    settings = [flag for flag in settings if not _is_cache(flag)]
    module = ["launch.tpu", "run"] if launcher == "tpu" else ["launch.gke", "manifest" if launcher == "gke" else "xpk"]
    return ["python", "-m", *module, f"--name={named}", config, f"--workdir={where}", *caches, *own, "--", *settings]


def run_name(sweep: str, folder: str) -> str:
    """A name that the cloud takes, for the run in that folder of a sweep; a long one is cut and marked by a hash."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{sweep}-{folder}".lower()).strip("-")
    if len(name) <= _LONGEST:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{name[: _LONGEST - 7].rstrip('-')}-{mark}"


def _is_cache(flag: str) -> bool:
    return flag.startswith("--config.train.compile_cache=")


def _moved(flag: str, old: str, new: str) -> str:
    name, equals, value = flag.partition("=")
    return f"{name}{equals}{new}{value.removeprefix(old)}" if value == old or value.startswith(f"{old}/") else flag


def _parser() -> Parser:
    parser = Parser("launch.sweep", "Print the launch command of every run of a sweep.")
    parser.add_argument("--on", choices=LAUNCHERS, required=True, help="what launches")
    parser.add_argument("--name", default="sweep", help="what the names of the runs begin with")
    parser.add_argument("--config", required=True, help="configs/ablations/<question>.py")
    parser.add_argument("--workdir", required=True, help="directory of the sweep")
    parser.add_argument("--seeds", default="", help="comma-separated, instead of the file's own")
    parser.add_argument("--only", default="", help="comma-separated names of points")
    return parser


if __name__ == "__main__":
    sys.exit(main())
