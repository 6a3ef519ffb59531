"""Run commands one after another in one process: a line of JSON in, a line of JSON out.

A fault that kills, aborts or hangs the process must not end the campaign, and starting Python anew for each of a
thousand cases would take hours. A request is ``{"argv": [...], "file_limit": bytes}``; 0 is no limit.
"""

import contextlib
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sparsejax.cli.main import main

# A file that grows past the limit then fails with an error, as on a full disk, instead of ending the process.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
UNLIMITED = resource.getrlimit(resource.RLIMIT_FSIZE)


def play(argv: list[str], file_limit: int) -> dict[str, Any]:
    """One command: its exit code, what it printed, its seconds."""
    out, err, start = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, UNLIMITED[1]))
        try:
            code: Any = main(argv)
        except SystemExit as left:
            code = left.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, UNLIMITED)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "seconds": time.monotonic() - start}


if __name__ == "__main__":
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(play(request["argv"], request["file_limit"])) + "\n")
        answers.flush()
