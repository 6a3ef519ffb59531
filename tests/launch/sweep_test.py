"""One launch command for every run of a sweep."""

import shlex
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from launch import shell, sweep
from sparsejax.cli.main import main as sparsejax

CONFIG = "configs/ablations/density.py"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The real ``sparsejax sweep``, in this process."""

    def run(argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert argv[0] == "sparsejax"
        code = sparsejax(argv[1:])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(argv, code, said.out, said.err)

    monkeypatch.setattr(shell.subprocess, "run", run)


def commands(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    assert sweep.main([f"--config={CONFIG}", *arguments]) == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("in_process")
def test_every_run_gets_a_machine_of_its_own_and_the_sweep_s_directory(capsys: pytest.CaptureFixture[str]) -> None:
    found = commands(capsys, "--on=tpu", "--name=d", "--workdir=gs://b/d/", "--", "--zone=z", "--config.train.steps=9")
    names, workdirs = [], []
    for command in found:
        assert command[:4] == ["python", "-m", "launch.tpu", "run"]
        own, settings = command[: command.index("--")], command[command.index("--") + 1 :]
        assert {"--zone=z", f"--config={CONFIG}", "--compile-cache=gs://b/d/compile_cache"} <= set(own)
        assert "--config.train.steps=9" in settings and not any("compile_cache" in flag for flag in settings)
        names += [flag for flag in own if flag.startswith("--name=")]
        workdirs += [flag for flag in own if flag.startswith("--workdir=")]
    assert len(found) == len(set(names)) == len(set(workdirs)) == 15
    assert "--workdir=gs://b/d/density=0.5/seed0" in workdirs and "--name=d-density-0-5-seed0" in names


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("on", "start"),
    [
        ("slurm", ["sbatch", "--nodes=2", "launch/slurm.sbatch"]),
        ("local", ["launch/local.sh", "--nodes=2", "--"]),
        ("gke", ["python", "-m", "launch.gke", "manifest"]),
        ("xpk", ["python", "-m", "launch.gke", "xpk"]),
    ],
)
def test_the_other_launchers(capsys: pytest.CaptureFixture[str], tmp_path: Any, on: str, start: list[str]) -> None:
    (found,) = commands(
        capsys, f"--on={on}", f"--workdir={tmp_path}", "--seeds=3", "--only=density=0.5", "--", "--nodes=2"
    )
    assert found[: len(start)] == start
    assert {f"--workdir={tmp_path}/density=0.5/seed3", "--nodes=2", "--config.seeds.data=3"} <= set(found)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/none.py"], "--config=configs/none.py: there is no such file"),
        (["--only=density=0.3"], "--only"),
        (["--", "--config.seeds.data=1"], "--config.seeds.data=1: a sweep sets the seeds of a run together"),
    ],
)
def test_what_the_sweep_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert sweep.main(["--on=tpu", f"--config={CONFIG}", "--workdir=gs://b/d", *arguments]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith(f"launch: {message}")


def test_long_names_stay_apart() -> None:
    names = {sweep.run_name("sweep", f"/{'point' * 9}={value}/seed{seed}") for value in range(20) for seed in range(3)}
    assert len(names) == 60
    assert all(len(name) <= 36 and name.replace("-", "").isalnum() for name in names)
