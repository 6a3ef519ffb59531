"""Runs a sweep: gives its runs to a worker process, outlives that process, and says what became of each."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from sparsejax.planning.outcomes import Outcome, Status, outcome_of, write_status
from sparsejax.planning.plan import PlannedRun
from sparsejax.training.interrupts import Interrupts

WORKER = (sys.executable, "-m", "sparsejax.planning.worker")
# How often a request to stop is looked for, in s.
_POLL = 0.2
_DIVERGED = 4


class Worker:
    """The process that trains; started when there is work, and again after it died."""

    def __init__(self, command: Sequence[str]) -> None:
        """Nothing is started yet."""
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if error is not None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()

    def train(self, run: PlannedRun, interrupts: Interrupts) -> dict[str, Any]:
        """The worker's answer about one run; if it died over it, ``{"code": 1, "reason": how}``."""
        trunks = [str(trunk) for trunk in run.trunks if (trunk / "config.json").exists()]
        job = {"config": run.config.to_dict(), "workdir": str(run.workdir), "trunks": trunks}
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            told = False
            while not select.select([process.stdout], [], [], _POLL)[0]:
                if interrupts.requested() and not told:
                    process.send_signal(signal.SIGTERM)
                    told = True
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = process.wait()
        self._process = None
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return {"code": 1, "reason": f"its process ended with {how}; see {run.workdir / 'log.txt'}"}

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            # A session of its own: Ctrl-C reaches the worker once, through us.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        return self._process


def run_sweep(runs: Sequence[PlannedRun], say: Callable[[str], None], command: Sequence[str] = WORKER) -> int:
    """Train every run that is not finished, one after another, with one line for each.

    Args:
      runs: what to run, in this order.
      say: receives a line when a run is done or found finished.
      command: starts the worker process.

    Returns:
      0 all finished or diverged, 1 some failed, 75 or 130 stopped by a signal, the current run saved.
    """
    failed = []
    with Interrupts() as interrupts, Worker(command) as worker:
        for number, run in enumerate(runs, 1):
            if interrupts.requested():
                break
            outcome = outcome_of(run)
            known = outcome.status in (Status.FINISHED, Status.DIVERGED)
            if not known:
                answer = worker.train(run, interrupts)
                if interrupts.requested() and answer["code"] != 0:
                    break
                outcome = _settled(run, answer)
            if outcome.status == Status.FAILED:
                failed.append(f"{run.point.name} seed {run.seed}")
            before = " (before)" if known else ""
            say(f"[{number}/{len(runs)}] {run.point.name} seed {run.seed}: {outcome.line}{before}")
        if interrupts.requested():
            say("stopped on request, the run in progress is saved; the same command continues")
            return interrupts.exit_code
    if failed:
        say(f"{len(failed)} of {len(runs)} runs failed, and are tried again by the next call: {'; '.join(failed)}")
    return 1 if failed else 0


def _settled(run: PlannedRun, answer: dict[str, Any]) -> Outcome:
    """What became of a run, recorded in its directory unless its result says so."""
    if answer["code"] == _DIVERGED:
        write_status(run, Status.DIVERGED, "")
    elif answer["code"] != 0:
        write_status(run, Status.FAILED, answer["reason"] or f"ended with exit code {answer['code']}")
    return outcome_of(run)
