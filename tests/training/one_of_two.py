"""One of two processes that train a tiny run: ``one_of_two.py JOB``, JOB being the JSON of these keys.

``process`` and ``port`` say who it is; ``directory`` holds the text; ``workdir`` is the run directory; ``changes`` are
those of ``tiny_run``; timeouts are seconds. After optimizer step ``step`` the process sends itself the signal
``strike``, or hangs if that is "hang". The exit code of ``train`` is that of the process.
"""

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sparsejax.training.cluster import Launch, joined
from sparsejax.training.loop import train
from sparsejax.training.session import Session
from tests.training.dense_weights import Checkpoint, dense_params
from tests.training.tiny import quiet_console, tiny_recipe, tiny_run


def wait_for_ever() -> None:
    """Hang as a process does whose disk or network is gone."""
    threading.Event().wait()


def strike_after(step: int, strike: Callable[[], None]) -> None:
    """Call ``strike`` once the optimizer step is done, before anything due after it."""
    original = Session._after_step

    def after_step(self: Any, state: Any, now: int, batch_BT: Any) -> Any:
        if now == step:
            strike()
        return original(self, state, now, batch_BT)

    Session._after_step = after_step  # type: ignore[method-assign]


def open_dense(name: str, notice: Callable[[str], None]) -> Checkpoint:
    """The dense weights of ``init_from``: equal in every process, on devices of none of them."""
    with tempfile.TemporaryDirectory() as directory:
        return Checkpoint(dense_params(tiny_recipe(Path(directory), model_layers=1)))


def main(job: dict[str, Any]) -> int:
    """Join the other process and train; returns the exit code."""
    if job["strike"] == "hang":
        strike_after(job["step"], wait_for_ever)
    elif job["strike"] is not None:
        strike_after(job["step"], lambda: os.kill(os.getpid(), signal.Signals[job["strike"]]))
    launch = Launch(False, f"127.0.0.1:{job['port']}", 2, job["process"], job["init_timeout"], job["heartbeat_timeout"])
    console = quiet_console()
    with joined(launch):
        run = tiny_run(Path(job["directory"]), **job["changes"])
        outcome = train(
            run, Path(job["workdir"]), extend=False, console=console, watchdog=job["watchdog"], opens=open_dense
        )
    print(console.file.getvalue())
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
