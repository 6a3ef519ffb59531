"""The verbs of launch/tpu.py but `run`, and what a user gets for a wrong flag: one line and exit code 2."""

from pathlib import Path

import pytest

from launch import gke, sweep, tpu
from tests.launch.conftest import FLAGS, REQUEST, RUN, Launch

WHERE = ["--zone=z1", "--owner=ada"]
THERE = {"lives": [{"worker": ["running step 7"], "codes": [0, 0]}], "there": True}


def changed(flag: str) -> list[str]:
    """The flags of RUN with one of them replaced or added."""
    name = flag.partition("=")[0]
    return [given for given in RUN if given.partition("=")[0] != name] + ([flag] if "=" in flag else [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["launch"], "launch: no such verb; there are run, up, setup, status, logs, down, down-all"),
        (changed("--name"), "the following arguments are required: --name; see 'python -m launch.tpu run --help'"),
        (changed("--zone"), "the following arguments are required: --zone; see"),
        (
            changed("--name=Run_1"),
            "--name=Run_1: write at most 36 lower-case letters, digits and hyphens, a letter first",
        ),
        (changed("--retries=-1"), "argument --retries: '-1' is no whole number up to 1000000; see"),
        (changed("--create-flags='--x"), 'argument --create-flags: "\'--x": No closing quotation; see'),
        (changed("--capacity=cheap"), "argument --capacity: invalid choice: 'cheap'"),
        ([*RUN, "--retry=1"], "unrecognized arguments: --retry=1; see"),
        (changed("--num-slices=0"), "argument --num-slices: 0 must be 1 to 4096"),
        (changed("--hardware=v5p:3x3x3"), "--hardware=v5p:3x3x3: no accelerator type has this shape"),
        (changed("--hardware=tpu7x:2x2x1"), "--hardware=tpu7x:2x2x1: the TPU API does not have it, GKE does:"),
        ([*changed("--num-slices=2"), "--capacity=on-demand"], "--num-slices=2: only the queue gives several;"),
        ([*RUN, "--capacity=on-demand", "--valid-until=1h"], "--valid-until=1h: on-demand TPUs wait in no queue;"),
        ([*RUN, "--capacity=on-demand", "--connection=tunnel-through-iap"], "--connection=tunnel-through-iap: only"),
        (changed("--config=configs/none.py:size=1b"), "--config=configs/none.py:size=1b: there is no such file;"),
        (changed("--workdir=runs/a"), "--workdir=runs/a: several hosts need one run directory: use gs://"),
        ([*changed("--workdir=runs/a"), "--hardware=v5e:2x4"], "--workdir=runs/a: is on the disk of the TPU, and is"),
        ([*RUN, "--", "config.train.steps=1"], "config.train.steps=1: flags for the trainer, after '--', read"),
        (["down", *FLAGS, "--", "--config.train.steps=1"], "--config.train.steps=1: only 'run' and 'up' take flags"),
        (["logs", *FLAGS, "--follow", "--worker=all"], "--follow: shows one worker; name it with --worker"),
        (["down", *FLAGS], "--name=run: there is no such resource in z1"),
    ],
)
def test_refuses_in_one_line_and_asks_for_nothing(launch: Launch, arguments: list[str], message: str) -> None:
    ended = launch(*arguments)
    assert (ended.code, ended.out, ended.verbs()) == (2, "", [])
    assert ended.err.startswith(f"launch: {message}") and ended.err.count("\n") == 1


def test_a_config_outside_of_the_checkout_is_refused(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    ended = launch(*changed(f"--config={tmp_path}/mine.py"))
    assert (ended.code, ended.verbs()) == (2, [])
    assert "and only that is copied to the workers" in ended.err


@pytest.mark.parametrize(
    "more", [["--shared-workdir"], ["--hardware=v5e:2x4", "--keep", "--retries=0"]], ids=["shared", "kept"]
)
def test_a_local_path_that_stays_is_taken(launch: Launch, more: list[str]) -> None:
    ended = launch(*changed("--workdir=/mnt/run"), *more)
    assert ended.code == 0, ended.err
    (start,) = [call for call in ended.calls if "worker.sh start" in call]
    assert "--workdir=/mnt/run" in start and "JAX_COMPILATION_CACHE_DIR=/mnt/run/compile_cache" in start
    assert ("--distributed" in start) == ("--shared-workdir" in more), "one host must not look for others"


def test_the_trainer_s_flags_reach_it_quoted(launch: Launch) -> None:
    ended = launch(*RUN, "--compile-cache=gs://b/c", "--", "--config.data.name=two words", "--watchdog=600")
    (start,) = [call for call in ended.calls if "worker.sh start" in call]
    assert start.endswith("--distributed '--config.data.name=two words' --watchdog=600")
    assert "--command=env JAX_COMPILATION_CACHE_DIR=gs://b/c bash" in start


def test_status_of_one(launch: Launch) -> None:
    ended = launch("status", *FLAGS, scenario=THERE)
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "launch: run is ACTIVE",
        "launch: host0: exited with code 0",
        "launch: host1: exited with code 0",
    ]


def test_status_of_all_that_is_mine(launch: Launch) -> None:
    assert launch("status", *WHERE, scenario=THERE).out.split() == ["run", "queued-resources", "ACTIVE"]


def test_status_lists_nothing_of_others(launch: Launch) -> None:
    assert launch("status", "--zone=z1", "--owner=grace", scenario=THERE).out == ""


def test_setup_needs_ready_machines(launch: Launch) -> None:
    waiting = {"lives": [{"states": ["WAITING_FOR_RESOURCES"]}], "there": True}
    ended = launch("setup", *FLAGS, scenario=waiting)
    assert (ended.code, ended.verbs()) == (2, [])
    assert ended.err == "launch: --name=run: is WAITING_FOR_RESOURCES; 'up' waits until it is ready\n"


def test_setup_installs_again(launch: Launch) -> None:
    assert launch("setup", *FLAGS, scenario=THERE).verbs() == ["scp", "setup"]


def test_logs_come_from_the_workers_asked_for(launch: Launch) -> None:
    ended = launch("logs", *FLAGS, "--worker=all", "--lines=5", scenario=THERE)
    assert ended.verbs() == ["log"]
    assert "--worker=all --command=bash sparsejax/src/launch/worker.sh log 5" in ended.calls[-1]


def test_down_deletes_one_and_down_all_all(launch: Launch) -> None:
    assert launch("down", *FLAGS, scenario=THERE).verbs() == ["delete"]


def test_down_all(launch: Launch) -> None:
    ended = launch("down-all", *WHERE, scenario=THERE)
    assert (ended.code, ended.verbs()) == (0, ["delete"])
    assert ended.out.splitlines() == ["launch: deleting run (ACTIVE)", "launch: deleted 1 of ada in z1"]


def test_down_all_leaves_what_is_not_mine(launch: Launch) -> None:
    assert launch("down-all", "--zone=z1", "--owner=grace", scenario=THERE).verbs() == []


@pytest.mark.parametrize("verb", tpu.VERBS)
def test_every_verb_explains_its_flags(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as ended:
        tpu.main([verb, "--help"])
    assert ended.value.code == 0
    assert tpu.VERBS[verb] in " ".join(capsys.readouterr().out.split())


def test_a_dry_run_runs_nothing(launch: Launch) -> None:
    for verb in tpu.VERBS:
        name = [] if verb == "down-all" else ["--name=run"]
        request = REQUEST if verb in ("run", "up") else []
        ended = launch(verb, "--dry-run", *WHERE, *name, *request)
        assert (ended.code, ended.calls) == (0, []), ended.err
        assert "gcloud compute tpus" in ended.out


def test_the_other_commands_refuse_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert gke.main(["deployment"]) == gke.main(["manifest", "--name=a"]) == 2
    assert sweep.main(["--on=abacus"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "launch: deployment: no such kind; there are manifest, xpk"
    assert lines[1].startswith("launch: the following arguments are required: --image, --hardware")
    assert lines[2].startswith("launch: argument --on: invalid choice: 'abacus'")
