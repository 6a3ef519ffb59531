"""Trains a tiny run and kills its own process at an exact moment: ``killed_run.py DIRECTORY MOMENT STEP``.

Moments: ``step`` (right after that optimizer step, before anything due), ``rewire`` (after its rewiring, before
its checkpoint), ``save`` (while its checkpoint is being written), ``never``; ``term`` sends SIGTERM instead, ``nan``
poisons a parameter. The exit code of ``train`` is that of the process.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["JAX_PLATFORMS"] = "cpu"

from sparsejax.training import session
from sparsejax.training.loop import train
from tests.training.tiny import quiet_console, tiny_run


def strike_after(name: str, at: int, strike: Callable[[], None]) -> None:
    """Call ``strike`` when the session's method ``name`` is done with step ``at``."""
    original = getattr(session.Session, name)

    def method(self: session.Session, state: Any, step: int) -> Any:
        if name == "_after_step" and step == at:
            strike()
        result = original(self, state, step)
        if name != "_after_step" and step == at:
            strike()
        return result

    setattr(session.Session, name, method)


if __name__ == "__main__":
    directory, moment, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    hooks = {"step": "_after_step", "rewire": "_rewire", "save": "_save", "term": "_after_step"}
    number = signal.SIGTERM if moment == "term" else signal.SIGKILL
    if moment in hooks:
        strike_after(hooks[moment], at, lambda: os.kill(os.getpid(), number))
    outcome = train(tiny_run(directory), directory / "run", extend=False, console=quiet_console())
    sys.exit(outcome.exit_code)
