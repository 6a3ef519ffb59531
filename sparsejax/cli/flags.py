"""The flag parser of every command: a wrong flag is one line and exit code 2, like every other bad input."""

from __future__ import annotations

import argparse
from typing import NoReturn

from sparsejax.config import ConfigError


class FlagParser(argparse.ArgumentParser):
    """``argparse`` without abbreviations, whose errors are ``ConfigError``."""

    def __init__(self, command: str, description: str, epilog: str = "") -> None:
        """A parser for ``sparsejax <command>``."""
        super().__init__(
            prog=f"sparsejax {command}", description=description, epilog=epilog or None, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise ConfigError(f"{message}; see '{self.prog} --help'")
