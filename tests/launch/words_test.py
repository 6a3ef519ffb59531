"""Whatever a launch command is given for a flag, it answers in one line; what it hands on arrives letter by letter."""

import argparse
import os
import subprocess
from pathlib import Path

import pytest

from launch import gke, job, sweep, tpu
from launch.flags import joined
from tests.launch.conftest import FLAGS, REQUEST
from tests.launch.shell_scripts_test import LAUNCH, program

GKE = ["--name=run", "--image=i", *REQUEST]
COMMANDS = {
    **{
        verb: (tpu.main, [verb, *FLAGS, "--dry-run", *(REQUEST if verb in ("run", "up") else [])]) for verb in tpu.VERBS
    },
    "manifest": (gke.main, ["manifest", *GKE]),
    "xpk": (gke.main, ["xpk", *GKE, "--cluster=c"]),
    "sweep": (sweep.main, ["--on=local", "--config=configs/none.py", "--workdir=runs/none"]),
}
VALUES = ["--", "", "nan", "-1", "1e9", "9" * 5000, "a\nb", "~", "é b", "\udcff", "a", "\x1b[31m"]


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a command, whose flags are tried one by one."""
    if name in tpu.VERBS:
        return tpu._parser(name)
    return gke._parser(name) if name in gke.KINDS else sweep._parser()


CASES = [(name, flag) for name in COMMANDS for action in parser_of(name)._actions for flag in action.option_strings[:1]]


@pytest.mark.parametrize(("name", "flag"), CASES, ids=str)
def test_every_flag_of_every_command_answers_in_one_line(
    name: str, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main, given = COMMANDS[name]
    monkeypatch.setenv("PATH", str(tmp_path))
    if flag in ("-h", "--dry-run"):
        return
    for value in VALUES:
        for words in ([f"{flag}={value}"], [flag, value], [flag, value, f"{flag}={value}"]):
            code = main([*given, *words])
            said = capsys.readouterr()
            assert code in (0, 1, 2, 74), words
            assert code == 0 or (said.err.count("\n") == 1 and said.err[:-1].isprintable()), (words, said.err)
    assert list(tmp_path.iterdir()) == []


def test_both_ways_of_writing_the_trainer_s_flags() -> None:
    words = ["--config.a", "-1", "--extend", "--trunk", "b c", "--config.d=e=f", "--distributed"]
    assert joined(words) == ["--config.a=-1", "--extend", "--trunk=b c", "--config.d=e=f", "--distributed"]
    assert joined(["--exclusive", "-N", "2", "x"]) == ["--exclusive", "-N", "2", "x"]


@pytest.mark.parametrize("cache", ["gs://c/a b", "~/cache", "é", "$(touch x)", "a'b", "gs://plain", "-x"])
def test_the_worker_s_line_starts_the_trainer_with_any_cache(tmp_path: Path, cache: str) -> None:
    """The shell of a worker is asked."""
    (tmp_path / "bash").write_text('#!/bin/sh\nprintf "%s\\n" "$JAX_COMPILATION_CACHE_DIR" "$@"\n')
    (tmp_path / "bash").chmod(0o755)
    todo = job.Job("configs/a.py", "gs://b/run é", ("--config.data.path=a b",), cache)
    done = subprocess.run(
        ["/bin/sh", "-c", job.start(todo, distributed=True)],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == cache
    assert done.stdout.splitlines()[-4:] == [
        "--config=configs/a.py",
        "--workdir=gs://b/run é",
        "--distributed",
        "--config.data.path=a b",
    ]
    assert not (tmp_path / "x").exists()


def local(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    names = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "SLURM_JOB_ID")
    settings = {name: value for name, value in os.environ.items() if name not in names}
    command = [LAUNCH / "local.sh", "--dry-run", "--config=a", "--workdir", "b c", *options]
    return subprocess.run(command, capture_output=True, text=True, env=settings | environment)


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, ["CUDA_VISIBLE_DEVICES=0", "CUDA_VISIBLE_DEVICES=1"]),
        ({"CUDA_VISIBLE_DEVICES": "4,5"}, ["CUDA_VISIBLE_DEVICES=4", "CUDA_VISIBLE_DEVICES=5"]),
        ({"CUDA_VISIBLE_DEVICES": "7, 2,3"}, ["CUDA_VISIBLE_DEVICES=7", "CUDA_VISIBLE_DEVICES=2"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a1,MIG-b"}, ["CUDA_VISIBLE_DEVICES=GPU-a1", "CUDA_VISIBLE_DEVICES=MIG-b"]),
        ({"ROCR_VISIBLE_DEVICES": "1,0"}, ["ROCR_VISIBLE_DEVICES=1", "ROCR_VISIBLE_DEVICES=0"]),
        ({"HIP_VISIBLE_DEVICES": "6,7"}, ["HIP_VISIBLE_DEVICES=6", "HIP_VISIBLE_DEVICES=7"]),
        ({"CUDA_VISIBLE_DEVICES": "4,5", "SLURM_JOB_ID": "1"}, ["CUDA_VISIBLE_DEVICES=4", "CUDA_VISIBLE_DEVICES=5"]),
    ],
)
def test_each_process_gets_one_of_the_devices_that_were_given(environment: dict[str, str], first: list[str]) -> None:
    for spelling in (["--platform=gpu", "--processes=2"], ["--processes", "2", "--platform", "gpu"]):
        done = local(*spelling, **environment)
        assert [line.split()[0] for line in done.stdout.splitlines()] == first
        assert all("--workdir b\\ c" in line for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CUDA_VISIBLE_DEVICES": "4"}, "CUDA_VISIBLE_DEVICES=4 gives 1 GPUs"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES= gives 0 GPUs"),
        ({"CUDA_VISIBLE_DEVICES": "-1,0"}, "gives 0 GPUs"),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, "gives 1 GPUs"),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "gives 0 GPUs"),
        ({"SLURM_JOB_ID": "1"}, "this SLURM job was given no GPU"),
        ({"ROCR_VISIBLE_DEVICES": "1,2", "HIP_VISIBLE_DEVICES": "0,1"}, "are all set"),
    ],
)
def test_devices_that_were_not_given_are_not_taken(environment: dict[str, str], message: str) -> None:
    done = local("--platform=gpu", **environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr


@pytest.mark.parametrize("option", ["--processes", "--devices", "--port", "--grace", "--platform"])
def test_every_flag_of_local_takes_both_spellings_and_one_line(option: str) -> None:
    for value in ("--", "", "nan", "-1", "0", "9" * 50, "a\nb", "1 2"):
        for words in ([f"{option}={value}"], [option, value], ["--processes=2", option, value]):
            done = local(*words)
            assert (done.returncode, done.stdout) == (2, ""), words
            assert done.stderr.startswith("local.sh: ") and done.stderr.count("\n") == 1, words
    assert local("--processes=1", option).returncode == 2
    good = "cpu" if option == "--platform" else "3"
    assert local(option, good).stdout.replace("PORT", "3") == local(f"{option}={good}").stdout.replace("PORT", "3")


@pytest.mark.parametrize("flag", ["--coordinator=a:1", "--process_id", "--num_processes=2", "--distributed"])
def test_flags_that_local_gives_are_refused(flag: str) -> None:
    assert local(flag).returncode == 2


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--config", "c.py", "--workdir", "w x"], 0),
        (["--config=c.py", "--workdir=w"], 0),
        (["--config", "c.py"], 2),
        (["--workdir=--config=x", "y"], 2),
        ([], 2),
    ],
)
def test_slurm_hands_on_both_spellings(tmp_path: Path, flags: list[str], code: int) -> None:
    program(tmp_path / "srun", 'printf "%s\\n" "$@"')
    done = subprocess.run(
        ["bash", LAUNCH / "slurm.sbatch", *flags],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert done.stdout.splitlines()[-len(flags) :] == flags if code == 0 else done.stderr.count("\n") == 1
