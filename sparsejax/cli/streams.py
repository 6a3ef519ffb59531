"""Output streams as they are: closed, of an encoding that lacks a character, or with a reader that leaves."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, TextIO, cast


def settle_streams() -> None:
    """Make printing safe: closed streams lead nowhere, and characters that an encoding lacks are escaped."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is this one; else the next file that is opened would get what is printed.
            os.open(os.devnull, os.O_RDWR)
    # They are None where the interpreter found them closed.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def display_of(stream: TextIO) -> IO[str]:
    """The stream for text that only shows progress: once it cannot be written (a full disk, no reader) it is lost."""
    return cast(IO[str], _Display(stream))


class _Display(io.TextIOBase):
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream, which decides the characters of tables."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """That of the stream, for the width of a terminal."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write, or count only."""
        if not self._lost:
            try:
                self._stream.write(text)
            except OSError:
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Flush, unless it was given up."""
        if not self._lost:
            try:
                self._stream.flush()
            except OSError:
                self._give_up()

    def _give_up(self) -> None:
        # The interpreter must not fail on what is still buffered when it ends.
        self._lost = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
