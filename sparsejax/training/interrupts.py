"""Signals from outside: SIGTERM (preemption), SIGHUP (a closed terminal) and Ctrl-C.

While a run trains they are a flag that the loop polls. While there is nothing to save they end the process at once. An
exception would not do: it is printed or lost where a destructor or a callback runs, and a module whose import it broke
is imported once more, which native libraries that set the time zone of their log twice answer with an abort.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Self

# Exit codes a launcher can act on: 75 (EX_TEMPFAIL) means "saved, start me again".
PREEMPTED, INTERRUPTED = 75, 130
# As a shell counts a process that SIGTERM ended.
TERMINATED = 143

_CODES = {signal.SIGTERM: PREEMPTED, signal.SIGHUP: PREEMPTED, signal.SIGINT: INTERRUPTED}


def _heard() -> list[signal.Signals]:
    """The signals to listen to: what `nohup` made the process ignore stays ignored."""
    return [number for number in _CODES if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


class Interrupts:
    """Context manager that catches SIGTERM, SIGHUP and SIGINT; a second Ctrl-C stops at once, without saving.

    Entered once there is a state to save: reading a large corpus before may take long, and a signal ends it.

    Attributes:
      exit_code: 0 while nothing was asked for, else 75 (SIGTERM, SIGHUP) or 130 (SIGINT).
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _heard():
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Whether the run should save and stop."""
        return self.exit_code != 0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code == INTERRUPTED and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.exit_code = _CODES[signal.Signals(number)]


class Ending:
    """What signals do to the process of a command while no run listens: they end it, with a line and an exit code.

    Nothing is cleaned up, as when the process is killed; whatever writes files has to survive that.
    """

    def __init__(self) -> None:
        """Do nothing yet; see ``install``."""
        self._terminated = TERMINATED
        self._code: int | None = None
        self._waits = False

    def install(self, *, trains: bool) -> None:
        """Listen from now on; ``trains``: the command starts or continues a run, so that SIGTERM is exit code 75."""
        self._terminated = PREEMPTED if trains else TERMINATED
        for number in _heard():
            signal.signal(number, self._receive)

    def finished(self, code: int, *, waits: bool = False) -> None:
        """The work is done: a signal does not change the exit code any more.

        Args:
          code: of the process.
          waits: others have to be told that this process leaves, so a signal does not end it either.
        """
        self._code, self._waits = code, waits

    def leave(self) -> None:
        """End the process without the interpreter's own end, in which signals have no handler."""
        with contextlib.suppress(Exception):  # closed or full output, which the command has told
            sys.stdout.flush()
        if self._code is not None:
            os._exit(self._code)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._code is None:
            with contextlib.suppress(OSError):  # nobody reads the line
                os.write(2, b"sparsejax: stopped\n")
            self._code = INTERRUPTED if number == signal.SIGINT else self._terminated
        elif self._waits:
            return
        self.leave()


ENDING = Ending()
