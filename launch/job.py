"""What is trained: the command lines of the fit check, of the archive of the sources, and of the workers."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from launch.exit_codes import LaunchError
from launch.flags import joined
from launch.slices import Slice

ROOT = Path(__file__).resolve().parent.parent
# What a worker needs of the checkout.
_SOURCES = ("sparsejax", "configs", "launch", "constraints", "pyproject.toml", "README.md", "LICENSE")
ARCHIVE = "sparsejax-source.tgz"
# Flags of the trainer that the launch commands give.
_OWN = ("--config", "--workdir", "--distributed")
# Where everything lives on a worker, below the home directory: src/, venv/ and run/ (see worker.sh).
REMOTE = "sparsejax"


@dataclasses.dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
      config: config file as the trainer gets it, relative to the checkout, with its argument.
      workdir: run directory.
      flags: further flags of ``sparsejax train``.
      compile_cache: directory of compiled programs.
    """

    config: str
    workdir: str
    flags: tuple[str, ...]
    compile_cache: str


def make_job(config: str, workdir: str, flags: Sequence[str], compile_cache: str) -> Job:
    """A job whose config file is there and in the checkout.

    Raises:
      LaunchError: it is not, or a flag is none.
    """
    path, argument = _split(config)
    if not path.is_file():
        raise LaunchError(f"--config={config}: there is no such file; shipped ones are in configs/")
    if not path.resolve().is_relative_to(ROOT):
        raise LaunchError(f"--config={config}: lies outside of {ROOT}, and only that is copied to the workers")
    given = joined(flags)
    for flag in given:
        if not flag.startswith("--"):
            raise LaunchError(f"{flag}: flags for the trainer, after '--', read --config.section.key=value")
        if flag.partition("=")[0] in _OWN:
            raise LaunchError(f"{flag}: is a flag of this command; give it once, before '--'")
    inside = path.resolve().relative_to(ROOT).as_posix()
    cache = compile_cache or f"{workdir.rstrip('/')}/compile_cache"
    return Job(inside + argument, workdir, tuple(given), cache)


def _split(config: str) -> tuple[Path, str]:
    """The file, and its arguments with the colon before them; a path that is there may have colons of its own."""
    pieces = config.split(":")
    for count in range(1, len(pieces) + 1):
        if Path(":".join(pieces[:count])).is_file():
            break
    else:
        count = 1
    return Path(":".join(pieces[:count])), "".join(f":{piece}" for piece in pieces[count:])


def is_remote(workdir: str) -> bool:
    """Whether a directory is in object storage, which every worker sees and which outlives them."""
    return workdir.startswith("gs://")


def check_workdir(workdir: str, *, many_hosts: bool, survives: bool, shared: bool) -> None:
    """Refuse a run directory that would not be there when it is needed.

    Args:
      workdir: as given.
      many_hosts: several machines write to it.
      survives: nothing deletes the machines, and nothing makes them again.
      shared: the user says that it is mounted on all machines.

    Raises:
      LaunchError: it is on the disk of one machine, and that does not do.
    """
    if is_remote(workdir) or shared:
        return
    if many_hosts:
        raise LaunchError(
            f"--workdir={workdir}: several hosts need one run directory: use gs://<bucket>/<run>, or --shared-workdir "
            "if this path is mounted on all of them"
        )
    if not survives:
        raise LaunchError(
            f"--workdir={workdir}: is on the disk of the TPU, and is deleted with it: use gs://<bucket>/<run>, or "
            "--keep --retries=0"
        )


def fit_check(job: Job, hardware: Slice, num_slices: int, flags: Sequence[str]) -> list[str]:
    """The command that says whether it fits, on this machine and before anything is booked."""
    name = hardware.hardware if num_slices == 1 else f"{num_slices}x{hardware.hardware}"
    settings = [flag for flag in job.flags if flag.startswith("--config.")]
    return ["sparsejax", "check", f"--config={job.config}", f"--hardware={name}", *settings, *flags]


def train_flags(job: Job, *, distributed: bool) -> list[str]:
    """The flags of ``sparsejax train`` on every worker."""
    auto = ["--distributed"] if distributed else []
    return [f"--config={job.config}", f"--workdir={job.workdir}", *auto, *job.flags]


def archive(config: str, path: Path) -> list[str]:
    """The command that packs the sources, and the config file if it is somewhere else in the checkout."""
    file = str(_split(config)[0]) if config else ""
    own = [] if not file or file.partition("/")[0] in _SOURCES else [file]
    where = os.path.relpath(ROOT)
    return ["tar", "-czf", str(path), "--exclude=__pycache__", "-C", where, *_SOURCES, *own]


def unpack_and_install() -> str:
    """The command of a worker that unpacks the sources, replacing older ones, and installs them."""
    source = f"{REMOTE}/src"
    unpack = f"rm -rf {source} && mkdir -p {source} && tar -xzf {ARCHIVE} -C {source}"
    return f"{unpack} && {worker('setup', 'tpu,gcs')}"


def start(job: Job, *, distributed: bool) -> str:
    """The command of a worker that starts training and returns."""
    # Where quotes are needed the shell would take a plain assignment for a command.
    cache = shlex.join(["env", f"JAX_COMPILATION_CACHE_DIR={job.compile_cache}"])
    return f"{cache} {worker('start', *train_flags(job, distributed=distributed))}"


def worker(verb: str, *arguments: str) -> str:
    """A call of ``worker.sh``, quoted for the shell of the worker."""
    return shlex.join(["bash", f"{REMOTE}/src/launch/worker.sh", verb, *arguments])
