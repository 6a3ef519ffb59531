"""launch/local.sh with a trainer that does as it is told: who is started, who is stopped, and which code comes back."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.launch.shell_scripts_test import LAUNCH, program

# Process i does what the i-th word of ROLES says. `wait` lets a trap run at once; the sleeps never come to their end.
TRAINER = """
id=${*: -1}
roles=($ROLES)
echo "$JAX_PLATFORMS/$JAX_NUM_CPU_DEVICES/$CUDA_VISIBLE_DEVICES/${https_proxy:-}: $*"
case ${roles[${id#*=}]} in
  saves) trap 'exit 75' TERM; trap 'exit 130' INT; echo "ready $$"; sleep 1000 & wait ;;
  deaf) trap '' TERM INT; echo "ready $$"; sleep 1000 & wait ;;
  *) exit "${roles[${id#*=}]}" ;;
esac
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    os.mkfifo(tmp_path / "gate")
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    monkeypatch.setenv("SPARSEJAX", program(tmp_path / "sparsejax", TRAINER))
    monkeypatch.setenv("https_proxy", "http://proxy")
    for name in ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*options: str, roles: str) -> subprocess.CompletedProcess[str]:
    command = [LAUNCH / "local.sh", *options, "--config=a", "--workdir=b c"]
    settings = {**os.environ, "ROLES": roles}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=settings)


@contextmanager
def started(*options: str, roles: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """local.sh once all processes are ready, and the numbers of these in their order; none outlives the test."""
    command = [LAUNCH / "local.sh", *options, "--config=a", "--workdir=b"]
    settings = {**os.environ, "ROLES": roles}
    pids: dict[int, int] = {}
    groups: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings) as process:
        assert process.stdout is not None
        try:
            while len(pids) < len(roles.split()):
                if ready := re.fullmatch(r"\[(\d+)\] ready (\d+)\n", next(process.stdout)):
                    pids[int(ready[1])] = int(ready[2])
            groups = [os.getpgid(pid) for pid in pids.values()]
            yield process, [pids[index] for index in sorted(pids)]
        finally:
            process.kill()
            for group in groups:
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)


def test_every_process_knows_the_others(environment: Path) -> None:
    done = run("--processes=3", "--devices=2", "--port=12355", roles="0 0 0")
    assert (done.returncode, done.stderr) == (0, "")
    joined = "--config=a --workdir=b c --coordinator=127.0.0.1:12355 --num_processes=3"
    expected = [f"[{i}] cpu/2//: train {joined} --process_id={i}" for i in range(3)]
    assert sorted(done.stdout.splitlines()) == expected


def test_each_gets_a_gpu_and_a_port_is_found(environment: Path) -> None:
    done = run("--platform=gpu", roles="0 0")
    first, second = sorted(done.stdout.splitlines())
    assert first.startswith("[0] //0/:") and second.startswith("[1] //1/:")
    assert first.partition("--coordinator=")[2].split()[0] == second.partition("--coordinator=")[2].split()[0]


@pytest.mark.parametrize(("roles", "code"), [("0 2", 2), ("4 0", 4), ("3 3", 3), ("saves 1", 1), ("75 75", 75)])
def test_the_first_failure_is_the_code(environment: Path, roles: str, code: int) -> None:
    """And ends the others: one that waits for a lost one would wait for ever."""
    assert run(roles=roles).returncode == code


def test_who_does_not_listen_is_killed(environment: Path) -> None:
    with started("--grace=1", "--processes=2", roles="deaf deaf") as (process, pids):
        os.kill(pids[0], signal.SIGKILL)
        assert process.wait(timeout=60) == 137
        assert process.stderr is not None
        err = process.stderr.read()
    assert "process 0 ended with exit code 137; the others have 1 s" in err
    assert "killing the 1 that did not end" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75)])
def test_signals_go_to_all(environment: Path, number: signal.Signals, code: int) -> None:
    with started("--processes=2", roles="saves saves") as (process, _):
        process.send_signal(number)
        assert process.wait(timeout=60) == code


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes=0"], "--processes=0: must be a whole number, at least 1"),
        (["--devices=two"], "--devices=two: must be a whole number, at least 1"),
        (["--platform=tpu"], "--platform=tpu: must be cpu or gpu"),
        (["--platform=gpu", "--devices=2"], "--devices=2: only CPUs are simulated; a process has one GPU"),
    ],
)
def test_refuses_in_one_line(environment: Path, options: list[str], message: str) -> None:
    done = run(*options, roles="0 0")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"local.sh: {message}\n")


@pytest.mark.parametrize("given", [[], ["--config=a"], ["--workdir=b"]])
def test_needs_a_config_and_a_directory(environment: Path, given: list[str]) -> None:
    done = subprocess.run([LAUNCH / "local.sh", *given], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is missing; see --help" in done.stderr
