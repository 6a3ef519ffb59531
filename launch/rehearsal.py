"""The shell of a dry run: it prints every command, runs none, and answers as a healthy cloud would.

So the commands shown are those of the code that runs, in its order, on the path where nothing goes wrong.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from launch.gcloud import NODE, OWNER
from launch.shell import Result, Shell, shown


class Rehearsal(Shell):
    """Prints instead of running."""

    def __init__(self, name: str, num_slices: int, owner: str, *, exists: bool) -> None:
        """A cloud that holds a resource of that name and owner, or does not hold it yet."""
        super().__init__(poll=0)
        self._nodes = [name] if num_slices == 1 else [f"{name}-{index}" for index in range(num_slices)]
        self._labels = {OWNER: owner}
        self._exists = exists

    def say(self, text: str) -> None:
        """Print as a comment, so that the whole output is a script."""
        print(f"# {text}")

    def run(self, argv: Sequence[str], *, shielded: bool = False) -> Result:
        """Print the command and answer it."""
        print(shown(argv))
        if argv[0] != "gcloud":
            return Result(0, "", "")
        collection, verb = argv[3], argv[4]
        if verb == "create":
            self._exists = True
        elif verb == "describe":
            return Result(0, self._description(collection), "") if self._exists else Result(1, "", "NOT_FOUND")
        elif verb == "list":
            listed = [{"name": name, "state": "READY", "networkEndpoints": [{}]} for name in self._nodes]
            return Result(0, json.dumps(listed) if collection == NODE else "[]", "")
        elif verb == "ssh" and "worker.sh log" not in argv[-1]:
            state = "exited code=0" if "worker.sh state" in argv[-1] else "done"
            return Result(0, f"sparsejax-worker rehearsal state={state}\n" * len(self._nodes), "")
        return Result(0, "", "")

    def show(self, argv: Sequence[str]) -> int:
        """Print the command; it succeeds."""
        print(shown(argv))
        return 0

    def pause(self) -> None:
        """Nothing is awaited."""

    def _description(self, collection: str) -> str:
        if collection == NODE:
            return json.dumps({"name": self._nodes[0], "state": "READY", "labels": self._labels})
        specs = [{"nodeId": name, "node": {"labels": self._labels}} for name in self._nodes]
        return json.dumps({"state": {"state": "ACTIVE"}, "tpu": {"nodeSpec": specs}})
