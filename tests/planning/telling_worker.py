"""The real worker, which writes the line ``training`` on stdout after step 10 and then waits for a request to stop."""

import os
import select
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sparsejax.planning import worker
from sparsejax.training.session import Session

# The worker takes stdout for its answers only.
STDOUT = os.dup(1)
after_step = Session._after_step


def told(session: Session, state: Any, step: int, *batch: Any) -> Any:
    """What is due after a step; after the tenth, tell and wait first."""
    if step == 10:
        os.write(STDOUT, b"training\n")
        while not session.interrupts.requested():
            select.select([], [], [], 0.01)
    return after_step(session, state, step, *batch)


if __name__ == "__main__":
    Session._after_step = told
    sys.exit(worker.main())
