"""A cloud for the launch tests: no other ``gcloud`` or ``sparsejax`` can be reached."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from launch import shell, tpu
from tests.launch import fake_gcloud

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--name=run", "--zone=z1", "--owner=ada", "--poll=0"]
REQUEST = ["--hardware=v5e:4x4", "--config=configs/quickstart.py", "--workdir=gs://bucket/run"]
RUN = ["run", *FLAGS, *REQUEST]


@pytest.fixture(autouse=True)
def signals_are_heard() -> None:
    """A process in the background may be told to ignore them, and its children would ignore them too."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@dataclasses.dataclass
class Ended:
    """What a launch left: its exit code, what it said, and the calls of ``gcloud`` and ``sparsejax``."""

    code: int
    out: str
    err: str
    calls: list[str]

    def verbs(self) -> list[str]:
        """The calls by their verbs; of ssh, what it runs. The looks, which are polling, are left out."""
        words = []
        for call in self.calls:
            parts = call.split()
            if parts[0] != "compute":
                words.append(parts[0])
            elif parts[3] == "ssh":
                words.append(call.partition("worker.sh ")[2].split()[0])
            else:
                words.append(parts[3])
        return [word for word in words if word not in ("describe", "list", "state")]


Launch = Callable[..., Ended]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a fake cloud, whose programs come first on PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    # Imported, not run as a script: compiled once for the hundred calls of the tests.
    start = "import sys; sys.path.insert(0, sys.argv.pop(1)); import fake_gcloud; sys.exit(fake_gcloud.main())"
    fake = f"-c '{start}' '{Path(fake_gcloud.__file__).parent}'"
    for name, text in (
        ("gcloud", f'exec "{sys.executable}" -S -E {fake} "$@"'),
        ("sparsejax", f'echo "$@" >>"{tmp_path}/calls.txt"\nexit "$(cat "{tmp_path}/check")"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "check").write_text("0")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_CLOUD", str(tmp_path))
    monkeypatch.chdir(ROOT)
    return tmp_path


def arguments_of(cloud: Path, arguments: Sequence[str], scenario: dict[str, Any]) -> list[str]:
    """Write the scenario; returns the arguments with the logs in the folder of the cloud."""
    (cloud / "scenario.json").write_text(json.dumps(scenario))
    verb, *rest = arguments
    logs = [f"--logs={cloud / 'logs'}"] if verb in ("run", "up", "setup", "status", "logs") else []
    return [verb, *logs, *rest]


def calls_of(cloud: Path) -> list[str]:
    return (cloud / "calls.txt").read_text().splitlines() if (cloud / "calls.txt").exists() else []


@pytest.fixture
def launch(cloud: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Launch:
    """``python -m launch.tpu`` in this process, with the calls of ``gcloud`` answered in it too: for speed alone."""

    def run(argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if argv[0] == "gcloud":
            try:
                return subprocess.CompletedProcess(argv, *fake_gcloud.play(cloud, argv[1:]))
            except fake_gcloud.CtrlC:
                raise KeyboardInterrupt from None
        code = 0
        if argv[0] == "sparsejax":
            code = int((cloud / "check").read_text())
            with (cloud / "calls.txt").open("a") as file:
                print(*argv[1:], file=file)
        return subprocess.CompletedProcess(argv, code, "", "")

    def play(*arguments: str, scenario: dict[str, Any] | None = None, **life: Any) -> Ended:
        monkeypatch.setattr(shell.subprocess, "run", run)
        code = tpu.main(arguments_of(cloud, arguments, scenario or {"lives": [life]}))
        said = capsys.readouterr()
        return Ended(code, said.out, said.err, calls_of(cloud))

    return play


@pytest.fixture
def launch_process(cloud: Path) -> Launch:
    """The same as a process of its own, with programs on PATH and real signals."""

    def play(*arguments: str, scenario: dict[str, Any] | None = None, **life: Any) -> Ended:
        given = arguments_of(cloud, arguments, scenario or {"lives": [life]})
        command = [sys.executable, "-m", "launch.tpu", *given]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment, start_new_session=True
        )
        return Ended(done.returncode, done.stdout, done.stderr, calls_of(cloud))

    return play
