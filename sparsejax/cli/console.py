"""The console of commands: names of runs and files are shown as they are, whatever brackets or colons they have."""

from __future__ import annotations

from typing import IO

from rich.console import Console


def plain_console(file: IO[str] | None = None, width: int | None = None) -> Console:
    """A console without markup, emoji codes or highlighting.

    Args:
      file: where it prints; None is standard output.
      width: columns; None is that of the terminal.
    """
    return Console(file=file, markup=False, emoji=False, highlight=False, width=width)
