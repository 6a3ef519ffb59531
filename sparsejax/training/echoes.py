"""What Orbax still prints after a checkpoint could not be read: tracebacks of tasks that it left behind.

Of a failed read one line is told. The tasks that were under way end by themselves, each with an error of its own, when
their loop is closed and when they are collected.
"""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PLACES = ("/orbax/", "/tensorstore/", "uvloop")


@contextmanager
def without_echoes() -> Iterator[None]:
    """Read inside: errors pass through, and nothing is printed of what they left behind, then or later."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if not isinstance(sys.unraisablehook, _Filter):
        sys.unraisablehook = _Filter(sys.unraisablehook)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        try:
            yield
        except Exception as error:
            # Frames of the error hold the tasks.
            error.__traceback__ = None
            raise
        finally:
            if sys.exc_info()[0] is not None:
                gc.collect()


class _Filter:
    """Python's hook for errors that nobody can catch, without those of Orbax's tasks."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, unraisable: Any) -> None:
        trace, places = unraisable.exc_traceback, [str(unraisable.object)]
        while trace is not None:
            places.append(trace.tb_frame.f_code.co_filename)
            trace = trace.tb_next
        if not any(place in each for each in places for place in _PLACES):
            self._before(unraisable)
