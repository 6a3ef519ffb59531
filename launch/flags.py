"""The flag parser of the launch commands: a wrong flag is one line and exit code 2."""

from __future__ import annotations

import argparse
import shlex
from typing import NoReturn

from launch.exit_codes import LaunchError


class Parser(argparse.ArgumentParser):
    """``argparse`` without abbreviations, whose errors are ``LaunchError``."""

    def __init__(self, module: str, description: str) -> None:
        """A parser for ``python -m <module>``."""
        super().__init__(prog=f"python -m {module}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise LaunchError(f"{message}; see '{self.prog} --help'")


def whole_number(text: str) -> int:
    """A number that is not negative; raises ``ArgumentTypeError``."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def words(text: str) -> tuple[str, ...]:
    """The words of a command line; raises ``ArgumentTypeError``."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
