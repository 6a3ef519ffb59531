"""The real worker, to which something happens after step 10 of the first run it trains: ``mortal_worker.py DEED ONCE``.

Deeds: ``die`` kills the process, ``tell`` writes the line ``training`` on stdout. The file ``ONCE`` says that it has
happened.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sparsejax.planning import worker
from sparsejax.training.session import Session

# The worker takes stdout for its answers only.
STDOUT = os.dup(1)
after_step = Session._after_step


def strike() -> None:
    """Do the deed, unless it was done before."""
    once = Path(sys.argv[2])
    if once.exists():
        return
    once.touch()
    if sys.argv[1] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    os.write(STDOUT, b"training\n")


def struck(session: Session, state: Any, step: int, *batch: Any) -> Any:
    """What is due after a step, and before it the deed if it is the tenth."""
    if step == 10:
        strike()
    return after_step(session, state, step, *batch)


if __name__ == "__main__":
    Session._after_step = struck
    sys.exit(worker.main())
