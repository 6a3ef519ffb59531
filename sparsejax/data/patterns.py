"""Patterns of file names, with one meaning on this machine and behind URIs.

``*``, ``?`` and ``[...]`` stand for letters of one name, ``**`` for any number of folders. They match files and pass
over folders. A name that begins with a dot is matched by a pattern that begins with a dot, and by no other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

_WILDCARDS = frozenset("*?[")
_FOLDERS = "**"


def cut(pattern: str) -> tuple[str, list[str]]:
    """The beginning of a pattern that has no wildcards, with its last slash, and the names that follow.

    ``corpus/en/*/a.txt`` gives ``corpus/en/`` and ``["*", "a.txt"]``; without wildcards there are no names.
    """
    names = pattern.split("/")
    fixed = next((i for i, name in enumerate(names) if _WILDCARDS & set(name)), len(names))
    if fixed == len(names):
        return pattern, []
    patterns = [*filter(None, names[fixed:-1]), names[-1]]
    # One "**" after another means what one means, and takes ever longer.
    once = [name for place, name in enumerate(patterns) if patterns[place - 1 : place + 1] != [_FOLDERS, _FOLDERS]]
    return "".join(f"{name}/" for name in names[:fixed]), once


def fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the path of a file, name by name, matches patterns name by name."""
    if not names or not patterns:
        return not names and not patterns
    if patterns[0] != _FOLDERS:
        return _fits(names[0], patterns[0]) and fits(names[1:], patterns[1:])
    if fits(names, patterns[1:]):
        return True
    # The last name is the file.
    last = len(names) == 1 and len(patterns) == 1
    return not names[0].startswith(".") and (last or fits(names[1:], patterns))


def local_files(folder: str, patterns: Sequence[str]) -> list[str]:
    """The files of this machine below ``folder`` that match, links included, sorted by path.

    Args:
      folder: where to begin, with a slash at its end; empty for the working directory.
      patterns: what ``cut`` left, name by name.

    Raises:
      OSError: a folder cannot be listed.
    """
    return sorted(set(_found(folder, patterns, frozenset()))) if os.path.isdir(folder or ".") else []


def _found(folder: str, patterns: Sequence[str], above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Descends; ``above`` are the folders on the way here, so that a link to one of them ends."""
    status = os.stat(folder or ".")
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    above |= {here}
    first, rest = patterns[0], patterns[1:]
    if first == _FOLDERS and rest:
        yield from _found(folder, rest, above - {here})
    for name in os.listdir(folder or "."):
        path = f"{folder}{name}"
        if not _fits(name, first):
            continue
        if not os.path.isdir(path):
            if not rest:
                yield path
        elif first == _FOLDERS:
            yield from _found(f"{path}/", patterns, above)
        elif rest:
            yield from _found(f"{path}/", rest, above)


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
