"""Places that a command writes to: a path of this machine, or of a bucket (``gs://bucket/name``)."""

from __future__ import annotations

import contextlib
import errno
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from etils import epath

from sparsejax.config import ConfigError
from sparsejax.files.text import one_line

Place: TypeAlias = Path | epath.Path

# Linux takes names of 255 bytes and paths of 4096; what a run puts below its directory takes up to 200.
_LONGEST_NAME, _LONGEST_PATH = 255, 3800
# Buckets that ``epath`` reads and writes.
_STORES = ("gs", "s3")


def place_of(flag: str, text: object) -> Place:
    """The place that a flag names.

    ``~`` and ``~user`` are home directories, ``file:///a`` is ``/a``, other names with ``://`` are of buckets.

    Args:
      flag: its name, without ``--``.
      text: what it says.

    Raises:
      ConfigError: the name is empty, too long or has control characters; or there is no such user or store.
    """
    name = str(text)
    problem = _problem(name)
    if problem:
        raise ConfigError(f"--{flag}={one_line(text)}: {problem}")
    if "://" in name and not name.startswith("file:"):
        return epath.Path(name)
    try:
        path = Path(name.removeprefix("file://")).expanduser()
    except RuntimeError:
        raise ConfigError(f"--{flag}={one_line(text)}: there is no such home directory; write the path out") from None
    sizes = [len(os.fsencode(part)) for part in path.parts]
    if max(sizes, default=0) > _LONGEST_NAME or len(os.fsencode(path.absolute())) > _LONGEST_PATH:
        raise ConfigError(f"--{flag}={one_line(text)}: is too long; choose a shorter name")
    return path


def _problem(name: str) -> str:
    """Say why no place may be called so; "" if one may."""
    if not name.strip():
        return "names no place; give a path, . for the directory you are in"
    # Line breaks, other control characters, and bytes that are not UTF-8: no message could show them.
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        return "has a control character or a byte that is not UTF-8; choose another name"
    scheme, _, rest = name.partition(":")
    if scheme == "file":
        return "" if rest.startswith("///") else "names no path of this machine; write the path itself"
    if scheme in _STORES and not (rest.startswith("//") and rest.strip("/")):
        return f"names no bucket; write {scheme}://bucket/name"
    if "://" in name and scheme not in _STORES:
        return "no such store; give a path, gs:// or s3://"
    return ""


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
