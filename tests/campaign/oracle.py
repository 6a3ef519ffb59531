"""The campaign's judge: every outcome is right, refused in one line, or fallen back with a line.

``Campaign`` draws cases from a seed for a share of the time, plays each in a process of its own (``player``), and keeps
what was wrong. Nothing else is a finding: another exit code, a traceback, an error of two lines, a hang, a process that
died, another number without a line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PLAYER = Path(__file__).with_name("player.py")
# README's table of exit codes. 1 is not in it.
DOCUMENTED = {0, 2, 3, 4, 74, 75, 76, 130, 143}
ERRORS = {2, 74}
# A command that takes longer hangs: each takes some seconds, and the machine may be busy.
PATIENCE = 240.0


@dataclasses.dataclass(frozen=True)
class Played:
    """A command and its outcome; ``code`` is None where the process died or hung, and ``err`` says which."""

    argv: list[str]
    code: int | None
    out: str
    err: str

    @property
    def printed(self) -> str:
        """Everything it printed."""
        return self.out + self.err

    def fault(self) -> str:
        """Name the break of a promise that shows without knowing the right result; empty if there is none."""
        if self.code is None:
            return self.err
        if "Traceback (most recent call last)" in self.printed:
            return "a traceback"
        if self.code not in DOCUMENTED:
            return f"exit code {self.code}"
        lines = [line for line in self.err.splitlines() if line.startswith("sparsejax: ")]
        if self.code in ERRORS and (len(lines) != 1 or not self.err.endswith(f"{lines[0]}\n")):
            return f"exit code {self.code} with {len(lines)} lines of error, or not the last"
        return ""


class Player:
    """A process that plays commands; made again when one kills it."""

    def __init__(self, folder: Path) -> None:
        """Start nothing yet; commands run in ``folder``, where outputs with odd names do no harm."""
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def play(self, argv: list[str], file_limit: int = 0) -> Played:
        """Play one command."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(PLAYER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
                cwd=self._folder,
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"argv": argv, "file_limit": file_limit}) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        line = process.stdout.readline() if ready else ""
        if line:
            answer = json.loads(line)
            return Played(argv, answer["code"], answer["out"], answer["err"])
        self.close()
        ending = f"the process died with {process.returncode}" if ready else f"no end after {PATIENCE:g} s"
        return Played(argv, None, "", ending)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclasses.dataclass
class Campaign:
    """Draws cases of one kind until their time is over.

    Attributes:
      kind: the name of the cases; with ``seed`` it decides them.
      seed: of the campaign.
      seconds: how long to draw; a started case is finished.
      player: plays the commands.
      cases: how many were drawn.
      findings: what was wrong, a text for each.
    """

    kind: str
    seed: int
    seconds: float
    player: Player
    cases: int = 0
    findings: list[str] = dataclasses.field(default_factory=list)

    def draws(self) -> Iterator[random.Random]:
        """Yield the generator of each case."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            yield random.Random(f"{self.seed} {self.kind} {self.cases}")
            self.cases += 1

    def judge(self, what: str, played: Played, wrong: str = "") -> None:
        """Keep a case as a finding if it broke a promise, or if the caller found something ``wrong``."""
        problem = played.fault() or wrong
        if problem:
            command = " ".join(played.argv)
            self.find(f"{what}: {problem}\n  sparsejax {command}\n  {played.code} {played.printed[-1500:]}")

    def find(self, problem: str) -> None:
        """Keep a finding."""
        self.findings.append(f"{self.kind} {self.cases}: {problem}")

    def closed(self) -> None:
        """Print how many cases there were; fail with the findings."""
        print(f"campaign, seed {self.seed}: {self.kind}: {self.cases} cases, {len(self.findings)} findings")
        assert self.cases > 0, "no case fitted into the time"
        assert not self.findings, "\n".join(self.findings)
