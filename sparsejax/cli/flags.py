"""The flag parser of every command: a wrong flag is one line and exit code 2, like every other bad input."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from sparsejax.config import ConfigError

# Above any FLOPs of a run; integers have to fit a machine word.
_TOO_LARGE = 1e40
_WORD = 2**63


class FlagParser(argparse.ArgumentParser):
    """``argparse`` without abbreviations, whose errors are ``ConfigError``."""

    def __init__(self, command: str, description: str, epilog: str = "") -> None:
        """A parser for ``sparsejax <command>``."""
        super().__init__(
            prog=f"sparsejax {command}", description=description, epilog=epilog or None, allow_abbrev=False
        )

    def add_overwrite(self) -> None:
        """Add ``--overwrite``, which every command that writes has; ``files.outputs.Outputs`` takes it."""
        self.add_argument("--overwrite", action="store_true", help="replace outputs that exist already")

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise ConfigError(f"{message}; see '{self.prog} --help'")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As ``argparse`` does it; refuses numbers that are none or that no machine word holds, and ``--flag=--``."""
        for word in args or ():
            name, _, value = word.partition("=")
            # argparse would drop the value.
            if name in self._option_string_actions and value == "--":
                self.error(f"argument {name}: '--' is no value")
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            number: object = getattr(found, action.dest, None)
            limit = _WORD if isinstance(number, int) else _TOO_LARGE
            if isinstance(number, int | float) and not abs(number) < limit:  # of NaN it is not true either
                shown = f"{number:g}" if isinstance(number, float) else "a number of more than 18 digits"
                self.error(f"argument {action.option_strings[-1]}: {shown} cannot be used")
        return found, rest


def run_directories(flag: str, text: str) -> list[str]:
    """The run directories of a comma-separated list, see ``paths``; raises ``ConfigError`` if none, or one twice."""
    return paths(flag, text, "config.json")


def paths(flag: str, text: str, holds: str = "") -> list[str]:
    """The paths of a comma-separated list; the names that a sweep gives have commas of their own.

    What stands before a comma is a path by itself if it is there, else it goes on behind the comma, as far as makes
    one that is there.

    Args:
      flag: its name, for the error.
      text: its value.
      holds: what is below such a path; empty for anything.

    Raises:
      ConfigError: none is named, or one of them twice.
    """
    pieces, found = [piece for piece in text.split(",") if piece], []
    below = f"/{holds}" if holds else ""
    while pieces:
        ends = [
            n for n in range(1, len(pieces) + 1) if os.path.exists(os.path.expanduser(",".join(pieces[:n])) + below)
        ]
        count = ends[0] if ends else 1
        found.append(",".join(pieces[:count]))
        pieces = pieces[count:]
    # A second name of a place, such as one through a link, would count it twice.
    places = {name if "://" in name else os.path.realpath(os.path.expanduser(name)) for name in found}
    if not found or len(places) < len(found):
        raise ConfigError(f"--{flag}={text}: must name different {'run directories' if holds else 'paths'}")
    return found


def whole_numbers(flag: str, text: str) -> tuple[int, ...]:
    """The different numbers of a comma-separated list; raises ``ConfigError`` if one is none."""
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ConfigError(f"--{flag}={text}: must be whole numbers, separated by commas") from None
