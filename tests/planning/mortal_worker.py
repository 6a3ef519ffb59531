"""The real worker, to which something happens after step 10 of the first run it trains: ``mortal_worker.py DEED ONCE``.

Deeds: ``die`` kills the process, ``tell`` writes the line ``training`` on stdout. The file ``ONCE`` says that it has
happened.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sparsejax.planning import worker
from tests.training.killed_run import strike_after

# The worker takes stdout for its answers only.
STDOUT = os.dup(1)


def strike() -> None:
    """Do the deed, unless it was done before."""
    once = Path(sys.argv[2])
    if once.exists():
        return
    once.touch()
    if sys.argv[1] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    os.write(STDOUT, b"training\n")


if __name__ == "__main__":
    strike_after("_after_step", 10, strike)
    sys.exit(worker.main())
