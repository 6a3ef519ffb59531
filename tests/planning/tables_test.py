"""The tables of a sweep on a worked example.

seed          0      1      2      mean   standard error
naive       4.0    4.2    4.4       4.2   0.2 / sqrt(3)
smet        3.7    4.1    open      3.9   0.4 / sqrt(2) / sqrt(2) = 0.2
difference -0.3   -0.1      -      -0.2   0.2 / sqrt(2) / sqrt(2) = 0.1
"""

import csv
import dataclasses
import io
import json
import math
from pathlib import Path

import pytest

from sparsejax.cli.config_flag import load_run
from sparsejax.config import ConfigError
from sparsejax.planning.outcomes import Outcome, Status, outcome_of, write_status
from sparsejax.planning.plan import PlannedRun, Sweep
from sparsejax.planning.points import read_points
from sparsejax.planning.tables import collect, run_rows, standard_error, summary_rows, varied
from sparsejax.scaling import runs as rows
from tests.scaling.runs_test import RESULT

CONFIG = "configs/quickstart.py"
LOSSES = {("form=naive", 0): 4.0, ("form=naive", 1): 4.2, ("form=naive", 2): 4.4}
LOSSES |= {("form=smet,block=8x8", 0): 3.7, ("form=smet,block=8x8", 1): 4.1}
POINTS = read_points([{"optim.form": "naive"}, {"optim.form": "smet", "topology.block": (8, 8)}, {"optim.lr": 0.1}])


def planned(workdir: Path) -> tuple[PlannedRun, ...]:
    return Sweep(CONFIG, (), POINTS, (0, 1, 2)).runs(workdir, lambda flags: load_run(CONFIG, flags))


def outcome(run: PlannedRun) -> Outcome:
    key = (run.point.name, run.seed)
    if key in LOSSES:
        return Outcome(Status.FINISHED, "", dataclasses.replace(RESULT, validation_loss=LOSSES[key]), 100.0 + run.seed)
    if run.point.name == "lr=0.1":
        return Outcome(Status.DIVERGED, "", None) if run.seed else Outcome(Status.FAILED, "out of memory", None)
    return Outcome(Status.OPEN, "", None)


@pytest.fixture(scope="module")
def example() -> tuple[list[dict], list[dict]]:
    runs = planned(Path("runs/x"))
    found = run_rows(runs, [outcome(run) for run in runs])
    return found, summary_rows(found, varied(runs))


def test_one_row_a_run_with_the_seeds_of_a_point_together(example):
    found, _ = example
    assert [(row["point"], row["seed"], row["status"]) for row in found] == [
        ("form=naive", 0, "finished"),
        ("form=naive", 1, "finished"),
        ("form=naive", 2, "finished"),
        ("form=smet,block=8x8", 0, "finished"),
        ("form=smet,block=8x8", 1, "finished"),
        ("form=smet,block=8x8", 2, "open"),
        ("lr=0.1", 0, "failed"),
        ("lr=0.1", 1, "diverged"),
        ("lr=0.1", 2, "diverged"),
    ]


def test_settings_are_columns_also_where_a_point_leaves_them_alone(example):
    found, summary = example
    for table in (found, summary):
        shown = [(row["optim.form"], row["topology.block"], row["optim.lr"]) for row in table]
        assert list(dict.fromkeys(shown)) == [("naive", "16x16", 0.004), ("smet", "8x8", 0.004), ("smet", "16x16", 0.1)]


def test_a_row_holds_the_result_or_the_reason(example):
    found, _ = example
    assert (found[3]["validation_loss"], found[3]["active_parameters"], found[3]["reason"]) == (3.7, 39_000_000, "")
    assert (found[6]["validation_loss"], found[6]["active_parameters"], found[6]["reason"]) == ("", "", "out of memory")


def test_means_and_standard_errors(example):
    naive, smet, _ = example[1]
    assert (naive["finished"], smet["finished"], smet["open"]) == (3, 2, 1)
    assert (naive["tokens_per_second"], smet["tokens_per_second"]) == (101.0, 100.5)
    assert naive["validation_loss"] == pytest.approx(4.2)
    assert naive["standard_error"] == pytest.approx(0.2 / math.sqrt(3))
    assert smet["validation_loss"] == pytest.approx(3.9)
    assert smet["standard_error"] == pytest.approx(0.2)


def test_the_difference_is_paired_over_common_seeds(example):
    naive, smet, diverged = example[1]
    assert smet["common_seeds"] == 2
    assert smet["difference"] == pytest.approx(-0.2)
    assert smet["difference_standard_error"] == pytest.approx(0.1)
    for row in (naive, diverged):
        assert (row["common_seeds"], row["difference"], row["difference_standard_error"]) == (0, "", "")


def test_a_point_without_a_loss_is_counted(example):
    row = example[1][2]
    assert (row["finished"], row["diverged"], row["failed"], row["open"]) == (0, 2, 1, 0)
    assert (row["validation_loss"], row["standard_error"], row["seconds"]) == ("", "", "")


def test_one_value_has_no_standard_error():
    assert standard_error([1.0]) == standard_error([]) == ""
    assert standard_error([1.0, 3.0]) == pytest.approx(1.0)


def test_the_files_are_what_the_directories_hold(tmp_path):
    runs = planned(tmp_path)
    for run in runs[:2]:
        run.workdir.mkdir(parents=True)
        rows.write(RESULT, run.workdir / "result.json")
    write_status(runs[2], Status.FAILED, "killed, by signal 9")
    texts = collect(runs)
    assert list(texts) == ["runs.csv", "summary.csv"]
    read = list(csv.DictReader(io.StringIO(texts["runs.csv"])))
    assert len(read) == 9 and read[0]["validation_loss"] == "3.75"
    assert [row["reason"] for row in read if row["status"] == "failed"] == ["killed, by signal 9"]
    assert collect(runs) == texts


def test_a_result_counts_more_than_an_earlier_failure(tmp_path):
    run = planned(tmp_path)[0]
    write_status(run, Status.FAILED, "killed")
    assert outcome_of(run).status == Status.FAILED
    rows.write(RESULT, run.workdir / "result.json")
    assert outcome_of(run).status == Status.FINISHED


def test_the_speed_is_the_median_of_the_log_intervals(tmp_path):
    run = planned(tmp_path)[0]
    run.workdir.mkdir(parents=True)
    rows.write(RESULT, run.workdir / "result.json")
    lines = [{"step": 1, "kind": "train", "tokens_per_second": speed} for speed in (2.0, 30.0, 20.0)]
    lines.append({"step": 1, "kind": "eval"})
    (run.workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert outcome_of(run).tokens_per_second == 20.0


@pytest.mark.parametrize("name", ["result.json", "status.json"])
def test_what_cannot_be_read_is_refused(tmp_path, name):
    run = planned(tmp_path)[0]
    run.workdir.mkdir(parents=True)
    (run.workdir / name).write_text('{"status": "lost"')
    with pytest.raises(ConfigError, match=rf"{name}: .*; remove") as caught:
        outcome_of(run)
    assert "\n" not in str(caught.value)
