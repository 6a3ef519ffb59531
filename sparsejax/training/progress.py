"""What a person sees while a run goes on: a bar on a terminal, one line per log interval elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class ProgressDisplay:
    """Shows step, loss, tokens/s and time left; use as a context manager."""

    def __init__(self, console: Console, start_step: int, steps: int) -> None:
        """Show progress from ``start_step`` to ``steps`` on ``console``."""
        self._console, self._steps = console, steps
        self._start_step, self._start_time = start_step, time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task("train", total=steps, completed=start_step, numbers="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, loss: float, tokens_per_second: float, learning_rate: float) -> None:
        """Show the state after ``step``: loss in nats a token."""
        numbers = f"loss {loss:.4f}  {tokens_per_second:,.0f} tokens/s  lr {learning_rate:.2e}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, numbers=numbers)
            return
        elapsed = time.monotonic() - self._start_time
        left = elapsed / max(step - self._start_step, 1) * (self._steps - step)
        self._console.print(f"step {step}/{self._steps}  {numbers}  {left:.0f} s left", highlight=False)

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        self._console.print(text, highlight=False, soft_wrap=True)
