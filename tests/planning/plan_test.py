"""A sweep as runs: paired seeds, commands that do the same, and directories that are kept apart."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from sparsejax.cli.config_flag import load_run
from sparsejax.config import ConfigError
from sparsejax.planning.plan import (
    PlannedRun,
    Sweep,
    check_directories,
    check_flags,
    idle_flags,
    recorded,
    train_command,
    write_record,
)
from sparsejax.planning.points import read_points
from sparsejax.training.workdir import write_manifest

CONFIG = "configs/quickstart.py"
POINTS = read_points([{"topology.method": "rigl", "topology.block": (8, 8)}, {"optim.lr": 0.002}])
SWEEP = Sweep(CONFIG, ("--config.train.steps=40",), POINTS, (0, 3))


def runs_of(sweep: Sweep, workdir: Path = Path("runs/x")) -> tuple[PlannedRun, ...]:
    return sweep.runs(workdir, lambda flags: load_run(CONFIG, flags))


def test_every_point_with_every_seed_one_seed_after_another():
    assert [(run.point.name, run.seed) for run in runs_of(SWEEP)] == [
        ("method=rigl,block=8x8", 0),
        ("lr=0.002", 0),
        ("method=rigl,block=8x8", 3),
        ("lr=0.002", 3),
    ]
    assert runs_of(SWEEP)[3].workdir == Path("runs/x/lr=0.002/seed3")


def test_runs_of_equal_seed_are_paired():
    for run in runs_of(SWEEP):
        seeds = run.config.seeds
        assert (seeds.init, seeds.topology, seeds.data) == (run.seed,) * 3


def test_a_point_has_its_settings_and_those_given_for_all():
    rigl, slow = (run.config for run in runs_of(SWEEP)[:2])
    # The method brings its choices, as the flag does.
    assert (rigl.topology.grow, rigl.optim.form, rigl.topology.block) == ("gradient", "naive", (8, 8))
    assert (slow.topology.grow, slow.optim.form, slow.optim.lr) == ("random", "smet", 0.002)
    assert {run.config.train.steps for run in runs_of(SWEEP)} == {40}
    assert {run.config.train.compile_cache for run in runs_of(SWEEP)} == {"runs/x/compile_cache"}


def test_a_flag_for_all_that_the_method_of_a_point_undoes_is_refused_or_told():
    sweep = dataclasses.replace(SWEEP, flags=("--config.optim.form=smet_code",))
    with pytest.raises(ConfigError, match=r"^point .*form=smet_code: is undone by --config.topology.method=rigl"):
        runs_of(sweep)
    told = []
    runs = sweep.runs(Path("runs/x"), lambda flags: load_run(CONFIG, flags, told.append))
    assert [run.config.optim.form for run in runs[:2]] == ["naive", "smet_code"]
    assert len(set(told)) == 1
    same = dataclasses.replace(SWEEP, flags=("--config.optim.form=naive",))
    assert {run.config.optim.form for run in runs_of(same)} == {"naive"}


def test_a_flag_for_all_that_no_run_takes_notice_of_is_said():
    flags = ("--config.optim.galore_rank=8", "--config.optim.ramp=7")
    runs = runs_of(dataclasses.replace(SWEEP, flags=flags))
    (line,) = idle_flags(flags, runs)
    assert line.startswith("--config.optim.galore_rank=8: no effect in any run of this sweep (optim.form=")


@pytest.mark.parametrize("number", range(4))
def test_the_printed_command_does_the_same_run(number):
    run = runs_of(SWEEP)[number]
    program, command, config, workdir, *flags = shlex.split(train_command(run, CONFIG))
    assert (program, command) == ("sparsejax", "train")
    assert workdir == f"--workdir={run.workdir}"
    assert load_run(config.removeprefix("--config="), flags) == run.config


def test_a_point_that_cannot_work_is_named_before_anything_runs():
    bad = dataclasses.replace(SWEEP, points=(*POINTS, *read_points([{"topology.block": (24, 24)}])))
    with pytest.raises(ConfigError, match=r"^point 'block=24x24': topology\.block=\(24, 24\): 24 does not divide"):
        runs_of(bad)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.optim.lr=1", "--config.optim.lr=1: the points of this sweep set it, such as 'lr=0.002'"),
        ("--config.seeds.data=1", "--config.seeds.data=1: a sweep sets the seeds of a run together; use --seeds"),
    ],
)
def test_what_the_sweep_sets_cannot_be_given_for_all(flag, message):
    with pytest.raises(ConfigError) as caught:
        check_flags([flag], POINTS)
    assert str(caught.value).startswith(message)


def test_a_directory_remembers_its_seeds(tmp_path):
    assert recorded(tmp_path / "new", SWEEP) == SWEEP
    write_record(tmp_path, SWEEP)
    more = dataclasses.replace(SWEEP, seeds=(1,))
    assert recorded(tmp_path, more).seeds == (0, 1, 3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sweep.json"]


def test_points_may_be_added_but_not_changed_or_lost(tmp_path):
    write_record(tmp_path, SWEEP)
    added = dataclasses.replace(SWEEP, points=(*POINTS, *read_points([{"optim.lr": 0.004}])))
    assert recorded(tmp_path, added).points == added.points
    renamed = dataclasses.replace(POINTS[0], settings={"optim.lr": 0.1})
    for other in (POINTS[:1], read_points([{"optim.lr": 0.1}]), (renamed, POINTS[1])):
        with pytest.raises(ConfigError, match=r"holds another sweep \(its point '.*'\); use a new --workdir$"):
            recorded(tmp_path, dataclasses.replace(SWEEP, points=other))


def test_a_directory_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds something that is no sweep; choose another$"):
        recorded(tmp_path, SWEEP)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": 2, "seeds": [0], "points": {}}'])
def test_a_record_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ConfigError, match=r"sweep\.json: .*; use a new --workdir$") as caught:
        recorded(tmp_path, SWEEP)
    assert "\n" not in str(caught.value)


def test_a_run_directory_of_another_config_is_refused(tmp_path):
    runs = runs_of(SWEEP, tmp_path)
    runs[1].workdir.mkdir(parents=True)
    write_manifest(runs[1].workdir, runs[1].config, 40, "data", "tokenizer")
    check_directories(runs)
    longer = dataclasses.replace(SWEEP, flags=("--config.train.steps=80",))
    with pytest.raises(ConfigError, match=r"seed0: holds a run with another config .*train\.steps: 40 -> 80"):
        check_directories(runs_of(longer, tmp_path))


def test_the_record_is_plain_json(tmp_path):
    write_record(tmp_path, SWEEP)
    record = json.loads((tmp_path / "sweep.json").read_text())
    assert record["points"]["method=rigl,block=8x8"] == {"topology.method": "rigl", "topology.block": [8, 8]}
    assert (record["config"], record["seeds"]) == (CONFIG, [0, 3])
