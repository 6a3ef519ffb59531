"""A thread that notices when a run hangs: it writes down where every thread is, and ends a process that has peers.

A hang of one process of many (a lost network, a dead disk, a collective that one of them never entered) looks like
silence everywhere. Single processes are never ended: there the stacks are for whoever looks.
"""

from __future__ import annotations

import faulthandler
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sparsejax.training.lost_peers import LOST_PEER, leave
from sparsejax.training.workdir import RunDirectory

# Seconds that compiling the first programs may take; a step never takes as long.
FIRST_STEP_GRACE = 3600.0
_LOOKS_PER_PERIOD = 10


class Watchdog:
    """Context manager: dumps all stacks when no step finished for ``seconds``; ends the process after twice that.

    Before the first ``beat`` programs are compiled, so the period is ``FIRST_STEP_GRACE`` if that is longer.
    """

    def __init__(
        self, seconds: float, directory: RunDirectory, *, name: str, end: Callable[[int, str], object] | None
    ) -> None:
        """Watch nothing yet.

        Args:
          seconds: without a step until stacks are dumped; 0 watches nothing.
          directory: gets ``stacks-<name>-<time>.txt``.
          name: of this process, for example "process 0 of 2".
          end: given an exit code and a line after the second period; None where nobody would start the run again.
        """
        self._seconds, self._directory, self._name, self._end = seconds, directory, name, end
        self._limit = max(seconds, FIRST_STEP_GRACE)
        self._last = time.monotonic()
        self._dumped = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._seconds:
            self._thread.join()

    def beat(self) -> None:
        """A step, or a batch of an evaluation, is done."""
        self._last, self._limit, self._dumped = time.monotonic(), self._seconds, False

    def check(self, now: float) -> None:
        """Do what is due at ``now`` (``time.monotonic()``): nothing, a dump, or the end."""
        quiet = now - self._last
        if quiet >= 2 * self._limit and self._end is not None:
            self._end(
                LOST_PEER,
                f"sparsejax: {self._name}: no step finished for {quiet:.0f} s (see the stacks above); what came after "
                "the last checkpoint is lost, start all processes again",
            )
        elif quiet >= self._limit and not self._dumped:
            self._dumped = True
            self._dump(quiet)

    def _watch(self) -> None:
        while not self._stopped.wait(self._seconds / _LOOKS_PER_PERIOD):
            self.check(time.monotonic())

    def _dump(self, quiet: float) -> None:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            stacks = file.read()
        report = f"{self._name}: no step finished for {quiet:.0f} s; all threads are here:\n{stacks}"
        print(f"sparsejax: {report}", file=sys.stderr, flush=True)
        name = f"stacks-{self._name.replace(' ', '-')}-{time.strftime('%Y%m%dT%H%M%S')}.txt"
        try:
            (self._directory / name).write_text(report)
        except OSError as error:
            print(f"sparsejax: {name} cannot be written ({error})", file=sys.stderr, flush=True)


def ends_process(peers: int) -> Callable[[int, str], object] | None:
    """What ``Watchdog`` does at the end, for a run of so many processes."""
    return leave if peers > 1 else None
