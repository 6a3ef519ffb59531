"""Writes that survive a power cut: the file and its folder reach the disk before anyone is told."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def naming(path: Any) -> Iterator[None]:
    """Let an ``OSError`` of the block name the file: those of an open file do not by themselves."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def replace_file(path: Any, data: bytes | str) -> None:
    """Write a file whole or not at all: a temporary beside it, synced, renamed, and the folder synced.

    Args:
      path: a ``Path`` of this machine, or an ``epath.Path`` of a bucket, whose files appear whole when they are closed.
      data: the content; text is written as UTF-8.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    if not isinstance(path, Path):
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_path(path.parent)


def make_folder(folder: Any) -> None:
    """Make a folder and those above it that are missing, whose names reach the disk; one that is there stays.

    Args:
      folder: a ``Path`` of this machine, or an ``epath.Path`` of a bucket.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()] if isinstance(folder, Path) else []
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_path(each.parent)


def sync_path(path: Path) -> None:
    """Bring a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Bring all files and folders below ``folder``, and its own name, onto the disk."""
    for parent, _, files in os.walk(folder):
        for name in files:
            sync_path(Path(parent, name))
        sync_path(Path(parent))
    sync_path(folder.parent)
