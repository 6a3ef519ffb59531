"""The flag parser of the launch commands: a wrong flag is one line and exit code 2."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import Any, NoReturn

from launch.exit_codes import LaunchError

# More than any cloud has.
_MOST_SLICES = 4096
# Flags of the trainer that take no value.
_BARE = ("--extend", "--distributed")


class Parser(argparse.ArgumentParser):
    """``argparse`` without abbreviations, whose errors are ``LaunchError``."""

    def __init__(self, module: str, description: str) -> None:
        """A parser for ``python -m <module>``."""
        super().__init__(prog=f"python -m {module}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise LaunchError(f"{message}; see '{self.prog} --help'")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """As ``argparse`` does it, but for ``--flag=--``, from which it drops the value."""
        for word in args or ():
            name, _, value = word.partition("=")
            if name.startswith("--") and value == "--":
                self.error(f"argument {name}: '--' is no value")
        return super().parse_known_args(args, namespace)


def whole_number(text: str) -> int:
    """A number from 0 to 10^6; raises ``ArgumentTypeError``."""
    if not text.isdecimal() or len(text) > 7 or int(text) > 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number up to 1000000")
    return int(text)


def slices(text: str) -> int:
    """A number of slices; raises ``ArgumentTypeError``."""
    if not 1 <= whole_number(text) <= _MOST_SLICES:
        raise argparse.ArgumentTypeError(f"{text} must be 1 to {_MOST_SLICES}")
    return int(text)


def joined(words: Sequence[str]) -> list[str]:
    """``["--a", "1", "--b=2"]`` as ``["--a=1", "--b=2"]``: both ways in which the trainer takes a flag."""
    found: list[str] = []
    for word in words:
        open_flag = bool(found) and found[-1].startswith("--") and "=" not in found[-1] and found[-1] not in _BARE
        if open_flag and (not word.startswith("-") or word[1:2].isdecimal()):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def words(text: str) -> tuple[str, ...]:
    """The words of a command line; raises ``ArgumentTypeError``."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
