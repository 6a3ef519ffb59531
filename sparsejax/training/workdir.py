"""The run directory: who uses it, what it was started with, whether this config may continue it.

It is a directory of this machine, of a disk that all processes of the run share, or of a bucket (``gs://bucket/run``).
"""

from __future__ import annotations

import copy
import fcntl
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from etils import epath

from sparsejax.config import ConfigError, RunConfig, differing_keys
from sparsejax.files.durable import replace_file
from sparsejax.files.folders import hub_model_type, no_run
from sparsejax.files.json_records import read_record
from sparsejax.files.places import place_of
from sparsejax.topology.density_path import decays
from sparsejax.training.checkpoint_record import (
    DIGESTS,
    FOLDER,
    Config,
    Record,
    content_check,
    readable_records,
    steps_in,
)

# Receives one line for whatever the user must know.
Notice = Callable[[str], None]

# ``epath.Path`` is what a bucket is read and written through; it knows the methods of ``Path`` that are used here.
RunDirectory: TypeAlias = Path | epath.Path

SCHEMA = 1
# Where a machine finds the text, keeps its caches, and by what it multiplies.
_OF_A_MACHINE = frozenset(
    {
        *(("data", key) for key in ("path", "validation_path", "cache_dir", "tokenizer_path")),
        *(("model", key) for key in ("implementation", "attention")),
        ("train", "compile_cache"),
    }
)
_FIX = "put the old values back, or restore it from a copy; without the file 'train' reads the copy in a checkpoint"
# Temporary names of what a run writes, of this version and of earlier ones.
_OWN_FILES = r"(config\.json|result\.json|metrics\.jsonl|loss\.png|tokenizer[\w.]*|vocab\.json|merges\.txt)"
_LEFT_OVER = re.compile(rf"\.{_OWN_FILES}\.\d+(\.tmp)?|{_OWN_FILES}\.tmp|\.mark-[0-9a-f]{{16}}")
_LENGTH_KEYS = ("train.steps:", "train.epochs:")


def run_directory(text: str, flag: str = "workdir") -> RunDirectory:
    """Return the run directory that a flag names; raises ``ConfigError`` for what cannot be one."""
    return place_of(flag, text)


def absolute(workdir: RunDirectory) -> RunDirectory:
    """The same directory from wherever a library looks; a URL as it is."""
    return workdir.absolute() if isinstance(workdir, Path) else workdir


@contextmanager
def claimed(workdir: RunDirectory) -> Iterator[None]:
    """Hold the run directory for this process; the claim dies with the process, however it ends.

    A bucket knows no such claim: there nothing keeps two runs apart but their names.

    Raises:
      ConfigError: the directory cannot be made, or another process trains in it.
    """
    _make(workdir)
    if not isinstance(workdir, Path):
        yield
        return
    try:
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: cannot be used ({error.strerror}); choose another") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"--workdir={workdir}: another process is training there; choose another") from None
        yield


def _make(workdir: RunDirectory) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    # Not only OSError: what a bucket's client raises is its own.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ConfigError(f"--workdir={workdir}: cannot be used ({reason}); choose another") from error


class _Manifest(msgspec.Struct):
    schema: int
    config: Config
    steps: int
    data_digest: str
    tokenizer_digest: str
    start_digest: str = ""
    git_commits: list[str] = []
    filled_epochs: list[int] = []
    check: str = ""


def read_manifest(workdir: RunDirectory) -> dict[str, Any] | None:
    """Read ``config.json`` (config, steps, digests, commits); None before the first start.

    Raises:
      ConfigError: the file is there but is no manifest, or is not what was written.
    """
    path = workdir / "config.json"
    if not path.exists():
        return None
    try:
        manifest = msgspec.structs.asdict(read_record(path, _Manifest, fix=_FIX))
    except ConfigError:
        if not hub_model_type(workdir):
            raise
        raise ConfigError(f"--workdir={workdir}: holds no run: {no_run(workdir)}") from None
    if manifest["schema"] != SCHEMA:
        raise ConfigError(f"{path}: was not written by this version of sparsejax; use a new --workdir")
    _fill_in(manifest["config"])
    # As it was written: another version may have other keys.
    if manifest["check"] and manifest["check"] != _check_of(read_record(path, dict[str, Any], fix=_FIX)):
        raise ConfigError(f"{path}: is not what was written: a value was changed{_changes(workdir, manifest)}; {_FIX}")
    return manifest


def started_with(workdir: RunDirectory) -> dict[str, Any] | None:
    """What the run in a directory was started with: ``config.json``, or the copy in its newest checkpoint without one.

    Raises:
      ConfigError: ``config.json`` is no manifest.
    """
    manifest = read_manifest(workdir)
    if manifest is not None:
        return manifest
    record = next(readable_records(workdir), None)
    if record is None:
        return None
    copied = msgspec.structs.asdict(record[1]) | {"schema": SCHEMA, "git_commits": []}
    _fill_in(copied["config"])
    return copied


def checked_manifest(workdir: RunDirectory) -> dict[str, Any] | None:
    """The same, held against the copies in all checkpoints.

    Raises:
      ConfigError: ``config.json`` is no manifest; or a checkpoint was saved with another config or on other data.
    """
    manifest = started_with(workdir)
    if manifest is None:
        return None
    for step, record in readable_records(workdir):
        lines = _differences(record, manifest)
        if lines:
            source = f"{workdir / 'config.json'} says" if (workdir / "config.json").exists() else "the newest"
            raise ConfigError(
                f"{workdir / FOLDER / str(step)}: was saved with other settings than {source} ({'; '.join(lines)}); "
                "put the old values back, or move the checkpoint away if it is of another run"
            )
    return manifest


def opened_manifest(workdir: RunDirectory, flag: str = "workdir") -> dict[str, Any]:
    """``config.json`` of a run that is read, held against the copies in its checkpoints; every reader begins here.

    Raises:
      ConfigError: the directory holds no run, or the manifest is not what the run was trained with.
    """
    if not (workdir / "config.json").exists():
        raise ConfigError(f"--{flag}={workdir}: holds no run: {no_run(workdir)}")
    manifest = checked_manifest(workdir)
    assert manifest is not None
    return manifest


def check_continues(workdir: RunDirectory, run: RunConfig, *, extend: bool) -> None:
    """Raise ``ConfigError`` naming every semantic key in which ``run`` differs from what ``workdir`` holds.

    With ``extend`` the length may grow (the learning-rate schedule follows the new length).
    """
    manifest = checked_manifest(workdir)
    if manifest is None:
        return
    lines = differing_keys(manifest["config"], run.to_dict())
    length = [line for line in lines if line.startswith(_LENGTH_KEYS)]
    problem = _problem_of_length(manifest["config"]["train"], run)
    if extend and length and not problem:
        lines = [line for line in lines if line not in length]
        length = []
    if lines:
        only_length = len(lines) == len(length)
        fix = "use a new --workdir, or the old values"
        if only_length:
            fix = problem or "a longer run needs --extend of 'train'"
        raise ConfigError(f"--workdir={workdir}: holds a run with another config ({'; '.join(lines)}); {fix}")


def check_same_data(workdir: RunDirectory, data_digest: str, tokenizer_digest: str) -> None:
    """Raise ``ConfigError`` if the text or the tokenizer is not what the run was started with, as far as it says."""
    manifest = started_with(workdir)
    if manifest is None:
        return
    for name, now in (("data_digest", data_digest), ("tokenizer_digest", tokenizer_digest)):
        # Checkpoints from before they held digests say nothing.
        if manifest[name] not in ("", now):
            raise ConfigError(
                f"--workdir={workdir}: {name} was {manifest[name][:12]}, the data found now has {now[:12]}; "
                "continue with the same data, or use a new --workdir"
            )


def filled_epochs(workdir: RunDirectory, run: RunConfig) -> list[int]:
    """Epochs that were once the end of the run in ``workdir``, whose last batch is filled up, though it goes on.

    Args:
      workdir: the run directory.
      run: the run as it shall go on; where it has more epochs than the one that was finished here, the end of that one
        is among them.
    """
    manifest = started_with(workdir)
    if manifest is None:
        return []
    before: list[int] = manifest["filled_epochs"]
    end = manifest["config"]["train"]["epochs"]
    finished = manifest["steps"] in steps_in(workdir)
    return [*before, end] if finished and 0 < end < run.train.epochs else before


def write_manifest(
    workdir: RunDirectory,
    run: RunConfig,
    steps: int,
    data_digest: str,
    tokenizer_digest: str,
    start_digest: str = "",
    filled: Sequence[int] = (),
) -> None:
    """Write ``config.json`` atomically; commits that an older one names stay.

    Args:
      workdir: the run directory.
      run: its configuration.
      steps: its length.
      data_digest: of its text.
      tokenizer_digest: of its tokenizer.
      start_digest: of the dense weights it started from, "" for none.
      filled: see ``filled_epochs``.
    """
    before = read_manifest(workdir)
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "config": run.to_dict(),
        "steps": steps,
        "data_digest": data_digest,
        "tokenizer_digest": tokenizer_digest,
        "start_digest": start_digest,
        "git_commits": [] if before is None else before["git_commits"],
        "filled_epochs": list(filled),
    }
    _replace_manifest(workdir, manifest)


def add_commits(workdir: RunDirectory, commits: Iterable[str]) -> None:
    """Add the commits that trained a run to its manifest, those that it does not name yet; "" is none."""
    manifest = read_manifest(workdir)
    assert manifest is not None
    known = manifest["git_commits"]
    named = list(dict.fromkeys([*known, *filter(None, commits)]))
    if named != known:
        _replace_manifest(workdir, manifest | {"git_commits": named})


def _replace_manifest(workdir: RunDirectory, manifest: dict[str, Any]) -> None:
    checked = manifest | {"check": _check_of(manifest)}
    replace_file(workdir / "config.json", json.dumps(checked, indent=1, allow_nan=False))


def _check_of(manifest: dict[str, Any]) -> str:
    """Digest of a manifest but for what may be changed by hand when the run moves to another machine."""
    config = {
        section: {key: value for key, value in values.items() if (section, key) not in _OF_A_MACHINE}
        for section, values in manifest["config"].items()
    }
    return content_check(manifest | {"config": config})


def _fill_in(config: Config) -> None:
    """Give a config of an older version the sections and keys that there were none of, with what they then meant."""
    # Runs from before there were meshes ran on one device, and all replicas once met every step.
    config.setdefault("mesh", {"replica": 1, "fsdp": 1, "tensor": 1, "sequence": False})
    together: dict[str, Any] = {"every": 1, "top": 0.03125, "chunk": 4096, "bits": 2, "beta": 0.95, "lr": 1.0}
    config.setdefault("outer", together | {"mean": "embedding_senders"})
    if "optim" in config:
        config["optim"].setdefault("vocabulary_lr_ratio", 1.0)
        config["optim"].setdefault("ema_decay", 0.0)
    # Runs once had no other start than a draw.
    drawn: dict[str, Any] = {"from": "", "criterion": "magnitude", "calibration_tokens": 131_072}
    drawn |= {"same_tokenizer": True, "distill_weight": 0.0, "distill_temperature": 1.0, "feature_weight": 0.0}
    config.setdefault("init", drawn)


def _changes(workdir: RunDirectory, manifest: dict[str, Any]) -> str:
    """Which values of a manifest are not those of the newest checkpoint, as ``" (a: 1 -> 2)"``; "" if none is known."""
    lines = next((_differences(record, manifest) for _, record in readable_records(workdir)), [])
    return f" ({'; '.join(lines)})" if lines else ""


def _differences(record: Record, manifest: dict[str, Any]) -> list[str]:
    """Lines for every setting and digest of a checkpoint that its run's manifest has otherwise; it may be longer."""
    config = copy.deepcopy(record.config)
    _fill_in(config)
    lines = differing_keys(config, manifest["config"])
    length = [line for line in lines if line.startswith(_LENGTH_KEYS)]
    facts = [name for name in DIGESTS if getattr(record, name)]
    if length and "train" in config and not _shrinks(config["train"], manifest["config"]["train"]):
        lines = [line for line in lines if line not in length]
    elif record.steps:
        facts += ["steps", "filled_epochs"]
    return lines + [
        f"{name}: {getattr(record, name)} -> {manifest[name]}"
        for name in facts
        if getattr(record, name) != manifest[name]
    ]


def remove_left_overs(workdir: RunDirectory) -> None:
    """Remove the temporary files that a process of this run left when it was killed; the claim is held."""
    if not isinstance(workdir, Path):
        return
    for folder in (workdir, workdir / "tokenizer"):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_file() and _LEFT_OVER.fullmatch(path.name):
                path.unlink()


def new_mark() -> str:
    """A name that no run directory has seen."""
    return f".mark-{secrets.token_hex(8)}"


def leave_mark(workdir: RunDirectory, mark: str) -> None:
    """Put down what the other processes of a run look for; ``remove_mark`` takes it away."""
    (workdir / mark).write_text(mark)


def remove_mark(workdir: RunDirectory, mark: str) -> None:
    """Take a mark away."""
    (workdir / mark).unlink()


def check_mark(workdir: RunDirectory, mark: str) -> None:
    """Raise ``ConfigError`` if the mark that process 0 left is not to be seen from here."""
    if not (workdir / mark).exists():
        raise ConfigError(
            f"--workdir={workdir}: is not the directory that process 0 writes to; name one on a disk that all "
            "processes share, or in a bucket (gs://bucket/run)"
        )


def _problem_of_length(old: dict[str, Any], run: RunConfig) -> str:
    """Why a run of that length cannot become ``run``, and what can be done; "" if it can grow so."""
    new = {"steps": run.train.steps, "epochs": run.train.epochs}
    if not _shrinks(old, new):
        # The path spans the run: at the same step the longer run has other blocks.
        schedule = run.topology.density_schedule
        return (
            f"topology.density_schedule={schedule} follows the length; use a new --workdir"
            if decays(run.topology)
            else ""
        )
    if bool(old["steps"]) != bool(new["steps"]):
        return "a run keeps its unit, steps or epochs; give its length in the old one, or use a new --workdir"
    return "a run cannot become shorter; give the old length to continue it, or use a new --workdir"


def _shrinks(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return bool(new["steps"] < old["steps"] or new["epochs"] < old["epochs"])
