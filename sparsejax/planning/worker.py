"""The process that trains the runs of a sweep, one after another, so that imports are paid for once.

It reads a job a line on stdin, ``{"config": ..., "workdir": ..., "trunks": [...]}``, and answers with a line on stdout,
``{"code": ..., "reason": ...}``: the exit code that ``sparsejax train`` would have, and one line for whatever was not
foreseen. What training prints goes to ``<workdir>/log.txt``. When stdin ends, so does the process; a run in progress
is saved first, so a sweep that was killed leaves nothing behind that still trains.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from sparsejax.config import ConfigError, resolve

FAILED = 1
# Columns of log.txt.
_WIDTH = 120


class Jobs:
    """The jobs, read by a thread of its own, which notices at once when whoever sends them is gone."""

    def __init__(self) -> None:
        """Start to read stdin."""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.training = False
        threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> str | None:
        """The next job; None when there will be no more."""
        return self._lines.get()

    def _read(self) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        self._lines.put(None)
        if self.training:
            os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Train every job that comes; returns 0."""
    answers = os.dup(1)
    # From here on nothing but answers may reach the pipe, whatever a library prints.
    os.dup2(2, 1)
    jobs = Jobs()
    while (line := jobs.take()) is not None:
        jobs.training = True
        answer = train_job(json.loads(line))
        jobs.training = False
        with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
            os.write(answers, f"{json.dumps(answer)}\n".encode())
    return 0


def train_job(job: dict[str, Any]) -> dict[str, Any]:
    """Train, or continue, one run; whatever goes wrong is in the answer, with its traceback in the log."""
    workdir = Path(job["workdir"])
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with (workdir / "log.txt").open("a", encoding="utf-8", buffering=1) as log:
            sys.stdout.flush()
            for descriptor in (1, 2):
                os.dup2(log.fileno(), descriptor)
            return {"code": _train(job, workdir, log), "reason": ""}
    except ConfigError as error:
        print(f"sparsejax: {error}", file=sys.stderr)
        return {"code": FAILED, "reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"code": FAILED, "reason": f"{type(error).__name__}: {error}".splitlines()[0]}


def _train(job: dict[str, Any], workdir: Path, log: Any) -> int:
    import jax
    from rich.console import Console

    from sparsejax.interop.dense_checkpoint import open_checkpoint
    from sparsejax.training.loop import train

    run = resolve(job["config"])
    # A run of a sweep is short, so even its small programs are worth keeping; the cache must be known before the first.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    try:
        trunks = [Path(trunk) for trunk in job["trunks"]]
        console = Console(file=log, width=_WIDTH, markup=False, emoji=False)
        return train(run, workdir, extend=False, console=console, trunks=trunks, opens=open_checkpoint).exit_code
    finally:
        # The programs of a run are of no use to the next one in memory, only in the cache.
        jax.clear_caches()
        gc.collect()


if __name__ == "__main__":
    sys.exit(main())
