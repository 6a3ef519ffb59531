"""A worker that trains nothing and does what the point of its job is called; used by runner_test.py.

    finishes    leaves a result
    dies        kills its own process, as the system does when memory runs out; finishes the next time
    exits       ends with exit code 3
    refuses     answers that it failed, and why
    diverges    answers with exit code 4
    stops       asks the sweep to stop (SIGTERM), and answers 75 when told so itself

Every job adds a line ``<process id> <point>`` to ``jobs.txt`` beside the points.
"""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sparsejax.scaling import runs
from tests.scaling.runs_test import RESULT


def obey(workdir: Path) -> dict[str, object]:
    """Do what the point says; returns the answer."""
    deed = workdir.parent.name
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir.parents[1] / "jobs.txt").open("a") as file:
        file.write(f"{os.getpid()} {deed}\n")
    once = workdir / "once"
    if deed == "dies" and not once.exists():
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "exits":
        os._exit(3)
    if deed == "refuses":
        return {"code": 1, "reason": "topology.rate=0.1: replaces none"}
    if deed == "diverges":
        return {"code": 4, "reason": ""}
    if deed == "stops":
        os.kill(os.getppid(), signal.SIGTERM)
        signal.sigwait({signal.SIGTERM})
        return {"code": 75, "reason": ""}
    runs.write(RESULT, workdir / "result.json")
    return {"code": 0, "reason": ""}


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for line in sys.stdin:
        print(json.dumps(obey(Path(json.loads(line)["workdir"]))), flush=True)
