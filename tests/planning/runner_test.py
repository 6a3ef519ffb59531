"""A sweep outlives its worker, tries no run twice in a call, and stops when it is told to."""

import sys
from pathlib import Path

import pytest

from sparsejax.cli.config_flag import load_run
from sparsejax.planning.outcomes import Status, outcome_of
from sparsejax.planning.plan import PlannedRun
from sparsejax.planning.points import Point
from sparsejax.planning.runner import run_sweep

WORKER = (sys.executable, str(Path(__file__).with_name("obedient_worker.py")))
CONFIG = load_run("configs/quickstart.py", [])


def planned(directory: Path, *names: str) -> list[PlannedRun]:
    return [PlannedRun(Point(name, {}), 0, (), CONFIG, directory / name / "seed0") for name in names]


def swept(runs: list[PlannedRun]) -> tuple[int, list[str]]:
    lines: list[str] = []
    return run_sweep(runs, lines.append, WORKER), lines


def jobs(directory: Path) -> tuple[list[str], int]:
    """What the workers were given, and how many processes they were."""
    lines = [line.split() for line in (directory / "jobs.txt").read_text().splitlines()]
    return [name for _, name in lines], len({process for process, _ in lines})


def test_one_process_trains_all_runs_in_order(tmp_path):
    runs = planned(tmp_path, "finishes", "finishes-too", "diverges", "refuses")
    code, lines = swept(runs)
    assert jobs(tmp_path) == (["finishes", "finishes-too", "diverges", "refuses"], 1)
    assert code == 1
    assert lines == [
        "[1/4] finishes seed 0: loss 3.7500, 12 s",
        "[2/4] finishes-too seed 0: loss 3.7500, 12 s",
        "[3/4] diverges seed 0: diverged",
        "[4/4] refuses seed 0: failed: topology.rate=0.1: replaces none",
        "1 of 4 runs failed, and are tried again by the next call: refuses seed 0",
    ]


@pytest.mark.parametrize(("deed", "how"), [("dies", "signal SIGKILL"), ("exits", "exit code 3")])
def test_a_dead_worker_costs_one_run(tmp_path, deed, how):
    runs = planned(tmp_path, "finishes", deed, "finishes-too")
    code, lines = swept(runs)
    assert jobs(tmp_path) == (["finishes", deed, "finishes-too"], 2)
    assert code == 1 and [outcome_of(run).status for run in runs] == [Status.FINISHED, Status.FAILED, Status.FINISHED]
    assert lines[1].startswith(f"[2/3] {deed} seed 0: failed: its process ended with {how}; see ")


def test_the_next_call_tries_what_failed_and_skips_the_rest(tmp_path):
    runs = planned(tmp_path, "finishes", "dies", "diverges")
    swept(runs)
    (tmp_path / "jobs.txt").unlink()
    code, lines = swept(runs)
    assert jobs(tmp_path) == (["dies"], 1)
    assert code == 0 and lines == [
        "[1/3] finishes seed 0: loss 3.7500, 12 s (before)",
        "[2/3] dies seed 0: loss 3.7500, 12 s",
        "[3/3] diverges seed 0: diverged (before)",
    ]


def test_a_diverged_run_is_no_failure(tmp_path):
    assert swept(planned(tmp_path, "diverges"))[0] == 0


def test_a_request_to_stop_reaches_the_worker_and_ends_the_sweep(tmp_path):
    runs = planned(tmp_path, "finishes", "stops", "finishes-too")
    code, lines = swept(runs)
    assert code == 75
    assert jobs(tmp_path)[0] == ["finishes", "stops"]
    assert [outcome_of(run).status for run in runs] == [Status.FINISHED, Status.OPEN, Status.OPEN]
    assert lines[-1].startswith("stopped on request")


def test_nothing_is_started_for_finished_runs(tmp_path):
    runs = planned(tmp_path, "finishes")
    swept(runs)
    assert run_sweep(runs, lambda line: None, ("/nowhere/worker",)) == 0


def test_a_worker_that_cannot_start_is_a_failure_of_every_run(tmp_path):
    runs = planned(tmp_path, "finishes", "finishes-too")
    code = run_sweep(runs, lambda line: None, (sys.executable, "-c", "raise SystemExit(5)"))
    assert code == 1
    assert all("exit code 5" in outcome_of(run).reason for run in runs)
