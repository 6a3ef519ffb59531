"""Exit codes of the launch commands, which are those of ``sparsejax train``, and the error that carries one."""

from __future__ import annotations

import sys

FINISHED = 0
FAILED = 1
INPUT = 2
DOES_NOT_FIT = 3
DIVERGED = 4
IO_FAILED = 74
PREEMPTED = 75
LOST_PEER = 76
INTERRUPTED = 130

# What another attempt would only repeat.
FINAL = {
    INPUT: "the trainer refused its input",
    DOES_NOT_FIT: "it does not fit the memory of the chips",
    DIVERGED: "the loss diverged",
}


class LaunchError(Exception):
    """Something that stops a launch; ``str(error)`` is the one line to show.

    Attributes:
      exit_code: of the command.
    """

    def __init__(self, message: str, exit_code: int = INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def answer(error: LaunchError | OSError) -> int:
    """Tell the user in one printable line; returns the exit code."""
    code, text = (error.exit_code, str(error)) if isinstance(error, LaunchError) else (IO_FAILED, _of_system(error))
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    print(f"launch: {line}", file=sys.stderr)
    return code


def _of_system(error: OSError) -> str:
    return str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
