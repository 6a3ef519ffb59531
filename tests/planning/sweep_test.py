"""A real sweep of tiny runs, from the command line and through the loss of whoever runs it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sparsejax.cli.config_flag import load_run
from sparsejax.cli.main import main
from sparsejax.planning.outcomes import Status, outcome_of
from sparsejax.planning.plan import Sweep, check_directories
from sparsejax.planning.points import read_points
from sparsejax.planning.runner import run_sweep
from sparsejax.scaling.runs import read
from sparsejax.training.metrics import read_rows
from tests.training.tiny import write_text

ABLATION = """
from pathlib import Path
from ml_collections import ConfigDict
from tests.training.tiny import tiny_settings

SEEDS = (0,)

def get_config():
    return ConfigDict(tiny_settings(Path(__file__).parent, topology_drop="none", topology_grow="none"))

def points():
    return [{"optim.lr": 0.01}, {"optim.lr": LR, "optim.b1": 0.9}]
"""
# The session's cache of compiled programs is shared by all tests.
SESSION_CACHE = "--config.train.compile_cache="


def write_ablation(directory: Path, lr: float = 0.02) -> Path:
    write_text(directory / "text.txt")
    write_text(directory / "validation.txt", seed=1, lines=20)
    path = directory / "ablation.py"
    path.write_text(ABLATION.replace("LR", str(lr)))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sweep")
    command = ["sweep", f"--config={write_ablation(directory)}", f"--workdir={directory / 'runs'}"]
    assert main([*command, SESSION_CACHE]) == 0
    return directory / "runs", command


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_leaves_its_record_and_log(finished):
    workdir, _ = finished
    runs = sorted(path.parent for path in workdir.glob("*/*/result.json"))
    assert [run.relative_to(workdir).as_posix() for run in runs] == [
        "lr=0.01/seed0",
        "lr=0.02,b1=0.9/seed0",
    ]
    for run in runs:
        assert "step 12/12" in (run / "log.txt").read_text()


def test_runs_of_equal_seed_begin_alike(finished):
    first = [read_rows(path)[0]["loss"] for path in finished[0].glob("*/seed0/metrics.jsonl")]
    assert len(first) == 2 and first[0] == first[1]


def test_the_tables(finished):
    rows, summary = (table(finished[0] / name) for name in ("runs.csv", "summary.csv"))
    assert [row["status"] for row in rows] == ["finished"] * 2
    losses = [float(row["validation_loss"]) for row in rows]
    assert losses[1] == read(finished[0] / "lr=0.02,b1=0.9" / "seed0" / "result.json").validation_loss
    assert float(summary[1]["difference"]) == losses[1] - losses[0] != 0
    assert summary[1]["common_seeds"] == "1"


def test_the_same_call_again_trains_nothing(finished, capsys):
    workdir, command = finished
    before = (workdir / "lr=0.01" / "seed0" / "metrics.jsonl").stat().st_mtime_ns
    tables = (workdir / "summary.csv").read_text()
    assert main([*command, SESSION_CACHE, "--only=lr=0.01"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 and printed[0].startswith("[1/1] lr=0.01 seed 0: loss ") and "before" in printed[0]
    assert (workdir / "lr=0.01" / "seed0" / "metrics.jsonl").stat().st_mtime_ns == before
    assert (workdir / "summary.csv").read_text() == tables


def test_collect_writes_the_tables_again(finished):
    workdir, command = finished
    tables = (workdir / "runs.csv").read_text()
    (workdir / "runs.csv").unlink()
    assert main([*command, SESSION_CACHE, "--collect"]) == 0
    assert (workdir / "runs.csv").read_text() == tables


def test_a_dry_run_prints_commands_and_touches_nothing(finished, capsys, tmp_path):
    command = [*finished[1][:2], f"--workdir={tmp_path / 'runs'}", "--dry-run", "--seeds=7", "--only=lr=0.01"]
    assert main(command) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"sparsejax train {command[1]} --workdir={tmp_path}/runs/lr=0.01/seed7 --config.train.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--seeds=one"], "--seeds=one: must be whole numbers"),
        (
            ["--only=lr=1.0"],
            "--only=lr=1.0: begins with no point of this sweep; it has lr=0.01, lr=0.02,b1=0.9",
        ),
        (["--config.optim.lr=1"], "--config.optim.lr=1: the points of this sweep set it"),
        (["--config.train.steps=13"], "train.steps: 12 -> 13"),
        (["--config.topology.block=3,3"], "point 'lr=0.01': topology.block=(3, 3): 3 does not divide"),
        (["--verbose"], "--verbose: unknown flag"),
        (["--config=configs/quickstart.py"], "defines no points, so it is no sweep; see configs/ablations/"),
    ],
)
def test_bad_calls_are_one_line(finished, capsys, flags, part):
    assert main([*finished[1], SESSION_CACHE, *flags]) == 2
    printed = capsys.readouterr().err
    assert part in printed and printed.count("\n") == 1


def test_another_sweep_in_the_same_directory_is_refused(finished, capsys, tmp_path):
    other = write_ablation(tmp_path, lr=0.03)
    assert main(["sweep", f"--config={other}", finished[1][2], SESSION_CACHE]) == 2
    assert "holds another sweep (its point 'lr=0.02,b1=0.9'); use a new --workdir" in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_whose_sweep_is_gone_saves_and_the_next_call_continues(tmp_path):
    config = str(write_ablation(tmp_path))
    sweep = Sweep(config, (SESSION_CACHE,), read_points([{"optim.lr": 0.01}]), (0,))
    (run,) = sweep.runs(tmp_path / "runs", lambda given: load_run(config, given))
    job = {"config": run.config.to_dict(), "workdir": str(run.workdir), "trunks": []}
    command = (sys.executable, str(Path(__file__).with_name("telling_worker.py")))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "training\n"
        worker.stdin.close()
        assert json.loads(worker.stdout.readline()) == {"code": 75, "reason": ""}
    assert worker.returncode == 0 and outcome_of(run).status == Status.OPEN

    check_directories([run])
    lines: list[str] = []
    assert run_sweep([run], lines.append) == 0
    assert lines[0].startswith("[1/1] lr=0.01 seed 0: loss ")
    assert "continuing from step 10 of 12" in (run.workdir / "log.txt").read_text()
