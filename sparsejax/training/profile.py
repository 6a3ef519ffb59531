"""A profiler trace of a few steps, for TensorBoard's profile plug-in (``xprof``)."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import jax

from sparsejax.training.state import TrainState


class StepProfiler:
    """Context manager that traces ``count`` steps from step ``start`` on; ``count`` 0 traces nothing."""

    def __init__(self, directory: Path, start: int, count: int) -> None:
        """Write the trace under ``directory``."""
        self._directory, self._start, self._stop = directory, start, start + count
        self._active = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            jax.profiler.stop_trace()

    def before(self, step: int) -> None:
        """Call before the step that follows ``step`` finished ones."""
        if self._start <= step < self._stop and not self._active:
            jax.profiler.start_trace(str(self._directory))
            self._active = True

    def after(self, step: int, state: TrainState) -> None:
        """Call when ``step`` steps are finished, with their state (it is waited for, so the trace is complete)."""
        if self._active and step >= self._stop:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._active = False
