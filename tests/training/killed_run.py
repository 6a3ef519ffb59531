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

from sparsejax.training import rewirer, session
from sparsejax.training.loop import train
from tests.training.tiny import quiet_console, tiny_run


def strike_after(owner: type, name: str, at: int, strike: Callable[[], None]) -> None:
    """Call ``strike`` when the method ``name`` is done with step ``at``; before it, if it is all that is due then."""
    original = getattr(owner, name)

    def method(self: Any, state: Any, step: int, *rest: Any) -> Any:
        if name == "_after_step" and step == at:
            strike()
        result = original(self, state, step, *rest)
        if name != "_after_step" and step == at:
            strike()
        return result

    setattr(owner, name, method)


if __name__ == "__main__":
    directory, moment, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    hooks = {
        "step": (session.Session, "_after_step"),
        "rewire": (rewirer.Rewirer, "_rewire"),
        "save": (session.Session, "_save"),
        "term": (session.Session, "_after_step"),
    }
    number = signal.SIGTERM if moment == "term" else signal.SIGKILL
    if moment in hooks:
        strike_after(*hooks[moment], at, lambda: os.kill(os.getpid(), number))
    outcome = train(tiny_run(directory), directory / "run", extend=False, console=quiet_console())
    sys.exit(outcome.exit_code)
