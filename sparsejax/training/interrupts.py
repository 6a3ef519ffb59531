"""Stop requests from outside: SIGTERM (preemption) and Ctrl-C, turned into a flag the loop polls."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

# Exit codes a launcher can act on: 75 (EX_TEMPFAIL) means "saved, start me again".
PREEMPTED, INTERRUPTED = 75, 130

_CODES = {signal.SIGTERM: PREEMPTED, signal.SIGINT: INTERRUPTED}


class Interrupts:
    """Context manager that catches SIGTERM and SIGINT; a second Ctrl-C stops at once, without saving.

    Attributes:
      exit_code: 0 while nothing was asked for, else 75 (SIGTERM) or 130 (SIGINT).
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _CODES:
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
