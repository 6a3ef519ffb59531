"""Running commands, showing them, and talking to the user."""

from __future__ import annotations

import dataclasses
import io
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from launch.exit_codes import LaunchError

# A command longer than this is shown over several lines.
WIDTH = 120


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str


class Shell:
    """Runs commands on this machine.

    Attributes:
      poll: seconds between two looks at something that is awaited.
    """

    def __init__(self, poll: float) -> None:
        self.poll = poll

    def say(self, text: str) -> None:
        """Tell the user something."""
        print(f"launch: {text}", flush=True)

    def run(self, argv: Sequence[str], *, shielded: bool = False) -> Result:
        """Run a command and keep what it writes; ``shielded``: the terminal's Ctrl-C does not reach it.

        Raises:
          LaunchError: there is no such program.
        """
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                start_new_session=shielded,
            )
        except FileNotFoundError:
            raise LaunchError(missing(argv[0])) from None
        return Result(done.returncode, done.stdout, done.stderr)

    def show(self, argv: Sequence[str]) -> int:
        """Run a command whose output is for the user; returns its exit code. Raises like ``run``."""
        sys.stdout.flush()
        try:
            return subprocess.run(argv, stdin=subprocess.DEVNULL).returncode
        except FileNotFoundError:
            raise LaunchError(missing(argv[0])) from None

    def pause(self) -> None:
        """Wait until the next look."""
        if self.poll > 0:
            time.sleep(self.poll)


def settle_output() -> None:
    """Escape what the output cannot hold, such as file names that are no text."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def missing(program: str) -> str:
    """What to do about a program that is not installed."""
    if program == "gcloud":
        return "gcloud was not found: install the Google Cloud CLI, https://cloud.google.com/sdk/docs/install"
    if program == "sparsejax":
        return "sparsejax was not found: pip install -e '.[tpu]' here, or leave the fit check out with --skip-check"
    return f"{program} was not found"


def shown(argv: Sequence[str]) -> str:
    """A command as one would type it, quoted, on several lines where one would be too long."""
    words = [shlex.quote(word) for word in argv]
    line = " ".join(words)
    if len(line) <= WIDTH:
        return line
    lines: list[str] = []
    for word in words:
        if lines and not word.lstrip("'").startswith("--"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return " \\\n    ".join(lines)
