"""The run directory: who uses it, what it was started with, whether this config may continue it.

It is a directory of this machine, of a disk that all processes of the run share, or of a bucket (``gs://bucket/run``).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

from etils import epath

from sparsejax.config import ConfigError, RunConfig, differing_keys
from sparsejax.files.folders import hub_model_type, no_run

# Receives one line for whatever the user must know.
Notice = Callable[[str], None]

# ``epath.Path`` is what a bucket is read and written through; it knows the methods of ``Path`` that are used here.
RunDirectory: TypeAlias = Path | epath.Path

SCHEMA = 1
_LENGTH_KEYS = ("train.steps:", "train.epochs:")


def run_directory(text: str) -> RunDirectory:
    """The run directory that a flag names; anything with ``://`` is a URL."""
    return epath.Path(text) if "://" in text else Path(text)


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


def read_manifest(workdir: RunDirectory) -> dict[str, Any] | None:
    """What ``config.json`` says (config, steps, digests, commits); None before the first start.

    Raises:
      ConfigError: the file is there but is no manifest.
    """
    path = workdir / "config.json"
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        missing = {"schema", "config", "steps", "data_digest", "tokenizer_digest"} - set(manifest)
    except (json.JSONDecodeError, TypeError) as error:
        raise ConfigError(f"{path}: is not valid JSON ({error}); restore it or use a new --workdir") from error
    if missing and hub_model_type(workdir):
        raise ConfigError(f"--workdir={workdir}: holds no run: {no_run(workdir)}")
    if missing or manifest["schema"] != SCHEMA:
        raise ConfigError(f"{path}: was not written by this version of sparsejax; use a new --workdir")
    # Runs from before there were meshes ran on one device, and all replicas once met every step.
    manifest["config"].setdefault("mesh", {"replica": 1, "fsdp": 1, "tensor": 1, "sequence": False})
    together: dict[str, Any] = {"every": 1, "top": 0.03125, "chunk": 4096, "bits": 2, "beta": 0.95, "lr": 1.0}
    manifest["config"].setdefault("outer", together | {"mean": "embedding_senders"})
    manifest["config"]["optim"].setdefault("vocabulary_lr_ratio", 1.0)
    manifest["config"]["optim"].setdefault("ema_decay", 0.0)
    # Runs once had no other start than a draw.
    drawn: dict[str, Any] = {"from": "", "criterion": "magnitude", "calibration_tokens": 131_072}
    drawn |= {"same_tokenizer": True, "distill_weight": 0.0, "distill_temperature": 1.0, "feature_weight": 0.0}
    manifest["config"].setdefault("init", drawn)
    manifest.setdefault("start_digest", "")
    manifest.setdefault("git_commits", [])
    return manifest


def check_continues(workdir: RunDirectory, run: RunConfig, *, extend: bool) -> None:
    """Raise ``ConfigError`` naming every semantic key in which ``run`` differs from what ``workdir`` holds.

    With ``extend`` the length may grow (the learning-rate schedule follows the new length).
    """
    manifest = read_manifest(workdir)
    if manifest is None:
        return
    lines = differing_keys(manifest["config"], run.to_dict())
    length = [line for line in lines if line.startswith(_LENGTH_KEYS)]
    if extend and length and not _shrinks(manifest["config"]["train"], run):
        lines = [line for line in lines if line not in length]
        length = []
    if lines:
        only_length = len(lines) == len(length)
        fix = "a longer run needs --extend" if only_length else "use a new --workdir, or the old values"
        raise ConfigError(f"--workdir={workdir}: holds a run with another config ({'; '.join(lines)}); {fix}")


def check_same_data(workdir: RunDirectory, data_digest: str, tokenizer_digest: str) -> None:
    """Raise ``ConfigError`` if the text or the tokenizer is not what the run was started with."""
    manifest = read_manifest(workdir)
    if manifest is None:
        return
    for name, now in (("data_digest", data_digest), ("tokenizer_digest", tokenizer_digest)):
        if manifest[name] != now:
            raise ConfigError(
                f"--workdir={workdir}: {name} was {manifest[name][:12]}, the data found now has {now[:12]}; "
                "continue with the same data, or use a new --workdir"
            )


def write_manifest(
    workdir: RunDirectory, run: RunConfig, steps: int, data_digest: str, tokenizer_digest: str, start_digest: str = ""
) -> None:
    """Write ``config.json`` atomically; commits that an older one names stay.

    Args:
      workdir: the run directory.
      run: its configuration.
      steps: its length.
      data_digest: of its text.
      tokenizer_digest: of its tokenizer.
      start_digest: of the dense weights it started from, "" for none.
    """
    before = read_manifest(workdir)
    manifest = {
        "schema": SCHEMA,
        "config": run.to_dict(),
        "steps": steps,
        "data_digest": data_digest,
        "tokenizer_digest": tokenizer_digest,
        "start_digest": start_digest,
        "git_commits": [] if before is None else before["git_commits"],
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
    temporary = workdir / "config.json.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        flushed(workdir, file)
    temporary.replace(workdir / "config.json")


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


def flushed(workdir: RunDirectory, file: IO[str]) -> None:
    """Bring what was written to a file of the run directory onto the disk; a bucket's files appear when closed."""
    file.flush()
    if isinstance(workdir, Path):
        os.fsync(file.fileno())


def _shrinks(old: dict[str, Any], run: RunConfig) -> bool:
    return run.train.steps < old["steps"] or run.train.epochs < old["epochs"]
