"""What a command writes when its work is done: tried before the work starts, and nothing is replaced unasked.

A trial makes the folder, writes an empty file in it and takes both away again, so that a command whose work fails
leaves nothing. Places are paths of this machine, or of a bucket (``gs://bucket/name``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath

from sparsejax.config import ConfigError
from sparsejax.files.durable import replace_file, sync_path, sync_tree
from sparsejax.files.places import (
    Place,
    identity_of,
    is_stream,
    is_there,
    make_folder,
    place_of,
    remove_empty,
    try_place,
)
from sparsejax.files.text import one_line

# What runs, models and their tokenizers consist of: never replaced by an output where the folder is an input.
_PARTS = frozenset({"config.json", "result.json", "metrics.jsonl", "sparsejax.json", "generation_config.json"})
_PART_SUFFIXES = (".safetensors", ".safetensors.index.json", ".model")
# By which Orbax knows a whole checkpoint in a bucket.
COMMIT_FILE = "commit_success.txt"
_CHUNK = 1 << 24
_EXISTS = "exists already; choose another, or replace it with --overwrite"
_PART_FOLDERS = frozenset({"checkpoints", "tokenizer"})


@dataclass(frozen=True)
class OutputFile:
    """A file that was tried; ``write`` makes it."""

    path: Place

    def write(self, content: bytes | str) -> None:
        """Write it whole or not at all, onto the disk; a pipe or a device just takes the bytes."""
        if is_stream(self.path):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            with open(descriptor, "wb", buffering=0) as stream:
                rest = memoryview(content.encode("utf-8") if isinstance(content, str) else content)
                while rest:
                    rest = rest[stream.write(rest) :]
            return
        if not isinstance(self.path, Path):
            replace_file(self.path, content)
            return
        # A link stays, and what it leads to is replaced.
        path = self.path.resolve()
        for folder in make_folder(path.parent):
            sync_path(folder.parent)
        replace_file(path, content)


@dataclass(frozen=True)
class OutputFiles:
    """Files of known names in a folder that may hold others."""

    folder: Place
    names: tuple[str, ...]

    def write(self, contents: Mapping[str, bytes | str]) -> list[Place]:
        """Write some of them, and remove the older ones of the others; returns the paths.

        What does not fit on the disk leaves the older files as they are.
        """
        assert set(contents) <= set(self.names), set(contents) - set(self.names)
        if isinstance(self.folder, Path):
            self._write_here(self.folder.resolve(), contents)
        else:
            for name, content in contents.items():
                replace_file(self.folder / name, content)
        for name in set(self.names) - set(contents):
            (self.folder / name).unlink(missing_ok=True)
        return [self.folder / name for name in contents]

    def _write_here(self, folder: Path, contents: Mapping[str, bytes | str]) -> None:
        """All into a folder beside their places, and then each to its place."""
        made = make_folder(folder)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        try:
            for name, content in contents.items():
                replace_file(new / name, content)
            for name in contents:
                (new / name).replace((folder / name).resolve())
        finally:
            shutil.rmtree(new, ignore_errors=True)
            remove_empty(made)
        for one in (folder, *(each.parent for each in made)):
            sync_path(one)


@dataclass(frozen=True)
class OutputTree:
    """A folder that appears whole, with everything in it, or not at all; in a bucket its files appear one by one."""

    folder: Place

    @contextlib.contextmanager
    def filled(self) -> Iterator[Path]:
        """Yield a folder of this machine to write into; it becomes the output when the block ends well."""
        folder = self.folder.resolve() if isinstance(self.folder, Path) else None
        # An empty folder may be the mount of a disk: it is filled from within.
        within = folder is not None and folder.is_dir() and not any(folder.iterdir())
        parent = folder if folder is None or within else folder.parent
        made = [] if parent is None else make_folder(parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=parent))
        try:
            yield temporary
            if folder is None:
                _upload(temporary, self.folder)
            elif within:
                _move_into(temporary, folder)
            else:
                # mkdtemp made it for this user alone.
                temporary.chmod(0o755)
                _swap(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            remove_empty(made)
            raise
        shutil.rmtree(temporary, ignore_errors=True)


class Outputs:
    """The outputs of one command. Make it, and name them to it, before the work starts."""

    def __init__(self, overwrite: bool, inputs: Iterable[object] = ()) -> None:
        """Take the places.

        Args:
          overwrite: replace what is there.
          inputs: files and folders that the command reads; none of them is replaced.
        """
        self._overwrite = overwrite
        self._inputs = [identity_of(place) for place in map(_place_read, inputs) if place is not None]
        self._taken: list[str] = []

    def file(self, flag: str, text: object) -> OutputFile:
        """Try a file.

        Args:
          flag: its flag, without ``--``.
          text: what the flag says.

        Raises:
          ConfigError: it exists and must not be replaced, is a folder, an input or named twice, or cannot be written.
        """
        with _refusing(flag, text):
            path = place_of(flag, text)
            self._check_file(flag, text, path)
            try_place(path)
        return OutputFile(path)

    def files(self, flag: str, text: object, names: Sequence[str]) -> OutputFiles:
        """Try files of these names in the folder that ``text`` names, which may hold others; raises as ``file``."""
        with _refusing(flag, text):
            folder = place_of(flag, text)
            if is_there(folder) and not folder.is_dir():
                raise _refusal(flag, text, "is a file; name a folder")
            for name in names:
                self._check_file(flag, f"{text}/{name}", folder / name)
            try_place(folder / names[0])
        return OutputFiles(folder, tuple(names))

    def tree(self, flag: str, text: object, mark: str) -> OutputTree:
        """Try a folder that is made as a whole.

        Args:
          flag: its flag, without ``--``.
          text: what the flag says.
          mark: a file that such a folder holds; one without it is never replaced.

        Raises:
          ConfigError: as ``file``, or it holds something else.
        """
        with _refusing(flag, text):
            folder = place_of(flag, text)
            identity = self._take(flag, text, folder)
            if any(one == identity or one.startswith(f"{identity}/") for one in self._inputs):
                raise _refusal(flag, text, "is an input of this command, or holds one; choose another")
            if is_there(folder) and not (folder.is_dir() and not any(folder.iterdir())):
                self._check_replaced(flag, text, folder, mark)
            try_place(folder)
        return OutputTree(folder)

    def _check_replaced(self, flag: str, text: object, folder: Place, mark: str) -> None:
        if not folder.is_dir():
            raise _refusal(flag, text, "is a file; name a folder")
        if not self._overwrite:
            raise _refusal(flag, text, _EXISTS)
        if not (folder / mark).exists():
            raise _refusal(flag, text, f"holds no {mark}, so --overwrite does not replace it; choose another")
        if isinstance(folder, Path) and (folder.is_symlink() or folder.is_mount()):
            raise _refusal(flag, text, "is a link or the root of a disk, which --overwrite does not replace")

    def _check_file(self, flag: str, text: object, path: Place) -> None:
        identity = self._take(flag, text, path)
        if path.is_dir() or str(text).endswith("/"):
            raise _refusal(flag, text, "is a folder; name a file")
        if identity in self._inputs or any(_is_part(one, identity) for one in self._inputs):
            raise _refusal(flag, text, "is an input of this command; choose another")
        if is_there(path) and not is_stream(path) and not self._overwrite:
            raise _refusal(flag, text, _EXISTS)

    def _take(self, flag: str, text: object, place: Place) -> str:
        identity = identity_of(place)
        if identity in self._taken and not is_stream(place):
            raise _refusal(flag, text, "is the place of another output too; choose another")
        self._taken.append(identity)
        return identity


def _refusal(flag: str, text: object, problem: str) -> ConfigError:
    return ConfigError(f"--{flag}={one_line(text)}: {problem}")


def _place_read(name: object) -> Place | None:
    """The place of an input; None if it is none, which is for the reader to refuse."""
    try:
        return place_of("input", name)
    except ConfigError:
        return None


def _is_part(folder: str, path: str) -> bool:
    """Whether a path is a file there that the run or model in ``folder`` consists of."""
    if not path.startswith(f"{folder}/") or not epath.Path(path).exists():
        return False
    first, *rest = path.removeprefix(f"{folder}/").split("/")
    return first in _PART_FOLDERS if rest else first in _PARTS or first.endswith(_PART_SUFFIXES)


@contextlib.contextmanager
def _refusing(flag: str, text: object) -> Iterator[None]:
    """Any error as one line that names the flag: what the client of a bucket raises is not only ``OSError``."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise _refusal(flag, text, f"cannot be written ({one_line(reason)}); choose another") from error


def _swap(new: Path, place: Path) -> None:
    """Put the folder ``new`` where ``place`` is; what was there goes when the new one is on the disk."""
    sync_tree(new)
    old = new.with_name(f"{new.name}.old") if place.exists() else None
    if old is not None:
        place.rename(old)
    try:
        new.rename(place)
    except OSError:
        if old is not None:
            old.rename(place)
        raise
    sync_path(place.parent)
    if old is not None:
        shutil.rmtree(old)


def _move_into(temporary: Path, folder: Path) -> None:
    """Move what a folder holds into the one that it lies in."""
    sync_tree(temporary)
    for path in temporary.iterdir():
        path.rename(folder / path.name)
    sync_path(folder)


def _upload(folder: Path, target: Any) -> None:
    """Copy a folder of this machine into a bucket, whose older files of it go first.

    What says that something is whole comes last: the marks of checkpoints, then the files at the top.
    """
    if target.exists():
        target.rmtree()
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    for name in sorted(names, key=lambda name: (len(name.parts) == 1, name.name == COMMIT_FILE, name)):
        with (folder / name).open("rb") as source, (target / name.as_posix()).open("wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK)
