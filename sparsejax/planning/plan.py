"""A sweep: every point with every seed as a checked run, and the record that keeps sweeps apart."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sparsejax.config import ConfigError, RunConfig
from sparsejax.planning.points import Point
from sparsejax.training.idle_settings import facts_of, idle_settings
from sparsejax.training.siblings import are_siblings
from sparsejax.training.workdir import check_continues

SCHEMA = 1
RECORD = "sweep.json"
COMPILE_CACHE = "train.compile_cache"
# Runs of equal seed are paired: the same first draw and the same order of the data at every point.
_SEEDS = ("seeds.init", "seeds.topology", "seeds.data")


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One point with one seed.

    Attributes:
      point: what distinguishes it.
      seed: of weights, topology and data alike.
      flags: what ``sparsejax train`` needs to do the same.
      config: the resolved configuration.
      workdir: its run directory, ``<sweep>/<point>/seed<k>``.
      trunks: directories of the runs whose first steps may be its own, see ``training.trunk``.
    """

    point: Point
    seed: int
    flags: tuple[str, ...]
    config: RunConfig
    workdir: Path
    trunks: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One question: its points and seeds.

    Attributes:
      config: the ablation file as given, with its argument.
      flags: settings given for all points.
      points: in the order of the file; the first is the one the others are compared with.
      seeds: every seed asked for so far.
    """

    config: str
    flags: tuple[str, ...]
    points: tuple[Point, ...]
    seeds: tuple[int, ...]

    def runs(self, workdir: Path, load: Callable[[Sequence[str]], RunConfig]) -> tuple[PlannedRun, ...]:
        """Every seed of every point, one seed after another; ``load`` resolves a list of ``--config...`` flags.

        Raises:
          ConfigError: names the point that cannot work.
        """
        return tuple(self._run(point, seed, workdir, load) for seed in self.seeds for point in self.points)

    def _run(self, point: Point, seed: int, workdir: Path, load: Callable[[Sequence[str]], RunConfig]) -> PlannedRun:
        # The flags for all come first: what distinguishes the points is the subject, and stays.
        cache = f"--config.{COMPILE_CACHE}={workdir / 'compile_cache'}"
        flags = (cache, *self.flags, *point.flags, *(f"--config.{key}={seed}" for key in _SEEDS))
        try:
            config = load(flags)
        except ConfigError as error:
            raise ConfigError(f"point '{point.name}': {error}") from error
        return PlannedRun(point, seed, flags, config, workdir / point.name / f"seed{seed}")


def check_flags(flags: Sequence[str], points: Sequence[Point]) -> None:
    """Raise ``ConfigError`` if a setting given for all points is one that the sweep sets itself."""
    for flag in flags:
        key = flag.removeprefix("--config.").partition("=")[0]
        if key in _SEEDS:
            raise ConfigError(f"{flag}: a sweep sets the seeds of a run together; use --seeds")
        for point in points:
            if key in point.settings:
                raise ConfigError(f"{flag}: the points of this sweep set it, such as '{point.name}'; leave it out")


def idle_flags(flags: Sequence[str], runs: Sequence[PlannedRun]) -> list[str]:
    """One line for each setting given for all points that has no effect in any of their runs."""
    given = {flag.removeprefix("--config.").partition("=")[0]: flag for flag in flags}
    found = [idle_settings(facts_of(run.config)) for run in runs]
    return [
        f"{flag}: no effect in any run of this sweep ({found[0][key]})"
        for key, flag in given.items()
        if found and all(key in idle for idle in found)
    ]


def train_command(run: PlannedRun, config: str) -> str:
    """The ``sparsejax train`` line that does this run, quoted for a shell."""
    trunks = [f"--trunk={','.join(map(str, run.trunks))}"] if run.trunks else []
    return shlex.join(["sparsejax", "train", f"--config={config}", f"--workdir={run.workdir}", *trunks, *run.flags])


def with_trunks(runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """The same runs, each with those before it that it may share its first steps with: the longest should come first.

    The runs of a sweep file that sets ``SHARE_TRUNKS`` get them. It changes what they cost, not what they are.
    """
    return tuple(
        dataclasses.replace(
            run, trunks=tuple(other.workdir for other in runs[:number] if are_siblings(run.config, other.config))
        )
        for number, run in enumerate(runs)
    )


def recorded(workdir: Path, sweep: Sweep) -> Sweep:
    """``sweep`` with the seeds that ``workdir`` already holds.

    Raises:
      ConfigError: the directory holds another sweep, or something that is none.
    """
    path = workdir / RECORD
    if not path.exists():
        if workdir.is_dir() and any(entry.name != ".lock" for entry in workdir.iterdir()):
            raise ConfigError(f"--workdir={workdir}: holds something that is no sweep; choose another")
        return sweep
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        schema, seeds, before = old["schema"], old["seeds"], old["points"]
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: is no record of a sweep ({error}); use a new --workdir") from error
    if schema != SCHEMA:
        raise ConfigError(f"{path}: was not written by this version of sparsejax; use a new --workdir")
    now = _record(sweep)["points"]
    for name in before:
        if name not in now or now[name] != before[name]:
            raise ConfigError(f"--workdir={workdir}: holds another sweep (its point '{name}'); use a new --workdir")
    return dataclasses.replace(sweep, seeds=tuple(sorted({*seeds, *sweep.seeds})))


def write_record(workdir: Path, sweep: Sweep) -> None:
    """Write ``sweep.json``, whole or not at all."""
    temporary = workdir / f".{RECORD}.{os.getpid()}"
    temporary.write_text(json.dumps(_record(sweep), indent=1) + "\n", encoding="utf-8")
    temporary.replace(workdir / RECORD)


def check_directories(runs: Sequence[PlannedRun]) -> None:
    """Raise ``ConfigError`` if a run directory holds a run with another config."""
    for run in runs:
        check_continues(run.workdir, run.config, extend=False)


def _record(sweep: Sweep) -> dict[str, Any]:
    # Through JSON, so that a tuple equals the list that is read back.
    points = json.loads(json.dumps({point.name: dict(point.settings) for point in sweep.points}))
    return {"schema": SCHEMA, "config": sweep.config, "points": points, "seeds": list(sweep.seeds)}
