"""Places that a command writes to: a path of this machine, or of a bucket (``gs://bucket/name``)."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from etils import epath

from sparsejax.config import ConfigError
from sparsejax.files.text import one_line

Place: TypeAlias = Path | epath.Path


def place_of(flag: str, text: object) -> Place:
    """The place that a flag names; ``~`` is the home directory, ``file://`` a path of this machine.

    Raises:
      ConfigError: it is empty, no file can be called so, or no such store is known.
    """
    name = str(text)
    if name.startswith("file:///"):
        name = name.removeprefix("file://")
    if not name or "\0" in name:
        raise ConfigError(f"--{flag}={one_line(text)}: is no name; give a path")
    if "://" not in name:
        return Path(os.path.expanduser(name))
    try:
        return epath.Path(name)
    except KeyError:
        raise ConfigError(f"--{flag}={one_line(text)}: no such store; give a path, gs:// or s3://") from None


def identity_of(place: Place) -> str:
    """A name that is equal for equal places, links followed."""
    return os.path.realpath(place) if isinstance(place, Path) else str(place).rstrip("/")


def is_there(place: Place) -> bool:
    """Whether anything has that name, a link that leads nowhere included."""
    return place.exists() or (isinstance(place, Path) and place.is_symlink())


def is_stream(place: Place) -> bool:
    """Whether it is a pipe or a device, which take bytes and are not replaced."""
    if not isinstance(place, Path):
        return False
    # /dev/stdout may lead to a file, of which only the end is written.
    if str(place.parent) in ("/dev", "/dev/fd", "/proc/self/fd"):
        return True
    return place.exists() and not place.is_dir() and not place.is_file()


def try_place(place: Place) -> None:
    """Write and remove an empty file beside ``place``; the folders that this takes are removed too."""
    if is_stream(place):
        if not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, "Permission denied")
        return
    made: list[Path] = []
    try:
        if isinstance(place, Path):
            place = place.resolve()
            made = make_folder(place.parent)
        trial = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        trial.write_bytes(b"")
        trial.unlink()
    finally:
        remove_empty(made)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the new ones, the deepest first."""
    missing = []
    for one in (folder, *folder.parents):
        if one.exists():
            if not one.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{one} is a file")
            break
        missing.append(one)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        remove_empty(missing)
        raise
    return missing


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders that are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
