"""Names of files that come from a file: they stay in its folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from sparsejax.config import ConfigError
from sparsejax.files.text import one_line


def confined(folder: Any, name: str, *, named_in: object, links: bool = False) -> Any:
    """The path of ``name`` in ``folder``; a name that leads out of it is refused.

    Args:
      folder: a ``Path`` of this machine or an ``epath.Path`` of a bucket.
      name: what the file ``named_in`` says: a plain name, or one with folders such as ``a/b.bin``.
      named_in: the file that holds the name, for the error.
      links: a link may lead out of the folder, as in the hub's cache; only for files that are read.

    Raises:
      ConfigError: the name is empty, absolute, has ``..``, a backslash or a control character, or is a link that
        leads out of ``folder``.
    """
    parts = PurePosixPath(name).parts
    legal = name and name.isprintable() and "\\" not in name and ":" not in name and not name.startswith("/")
    if not legal or ".." in parts or parts in ((), (".",)):
        raise ConfigError(f"{one_line(named_in)}: names the file {one_line(repr(name))}, which is not in its folder")
    path = folder / name
    if not links and isinstance(folder, Path) and not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{one_line(named_in)}: names the file {one_line(repr(name))}, a link out of its folder")
    return path
