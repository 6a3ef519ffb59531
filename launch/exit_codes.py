"""Exit codes of the launch commands, which are those of ``sparsejax train``, and the error that carries one."""

from __future__ import annotations

FINISHED = 0
FAILED = 1
INPUT = 2
DOES_NOT_FIT = 3
DIVERGED = 4
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
