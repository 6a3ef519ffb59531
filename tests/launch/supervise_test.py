"""The launcher against a cloud that waits, preempts, fails and surprises: it does the right thing, and stops."""

from pathlib import Path
from typing import Any

import pytest

from launch.supervise import combined
from tests.launch.conftest import FLAGS, REQUEST, RUN, Launch

# What one life that trains to an end does, after the fit check.
TRAINED = ["create", "scp", "setup", "start"]


def test_waits_trains_and_deletes(launch: Launch) -> None:
    ended = launch(
        *RUN,
        states=["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"],
        worker=["running step 10 loss 5.1", "running step 20 loss 4.2", "exited"],
    )
    assert (ended.code, ended.err) == (0, "")
    assert ended.verbs() == ["check", *TRAINED, "log", "delete"]
    assert ended.out.count("run is WAITING_FOR_RESOURCES: waiting") == 1
    assert "launch: step 20 loss 4.2" in ended.out
    assert "the run ended with exit code 0" in ended.out


def test_kept_if_asked(launch: Launch) -> None:
    ended = launch(*RUN, "--keep")
    assert (ended.code, ended.verbs()) == (0, ["check", *TRAINED, "log"])
    assert "run was kept" in ended.out


def test_preempted_twice_then_finished(launch: Launch) -> None:
    """Once the trainer saved and said so, once the node vanished; every life continues the same run directory."""
    lives = [{"codes": [75, 75]}, {"worker": ["running step 1"], "nodes": ["READY", "READY", "PREEMPTED"]}, {}]
    ended = launch(*RUN, scenario={"lives": lives, "deleting": 2})
    assert ended.code == 0
    assert ended.verbs() == ["check", *TRAINED, "delete", *TRAINED, "delete", *TRAINED, "log", "delete"]
    starts = [call for call in ended.calls if "worker.sh start" in call]
    assert len(set(starts)) == 1 and "--workdir=gs://bucket/run" in starts[0]
    assert "retry 2 of 10" in ended.out


@pytest.mark.parametrize(
    "life",
    [
        {"states": ["ACTIVE", "ACTIVE", "SUSPENDING"], "worker": ["running"]},
        {"nodes": ["READY", "READY", "TERMINATED"], "worker": ["running"]},
        {"nodes": ["READY", "READY", "a state of next year"], "worker": ["running"]},
        {"nodes": ["READY", "READY", "none"], "worker": ["running"]},
        {"worker": ["running", "lost"]},
        {"worker": ["silent"]},
        {"states": ["WAITING_FOR_RESOURCES", "SUSPENDED"]},
        {"codes": [1, 134], "nodes": ["READY", "READY", "READY", "REPAIRING"]},
        {"setup": 1, "nodes": ["READY", "STOPPED"]},
    ],
    ids=lambda life: "-".join(life),
)
def test_whatever_is_not_ready_is_gone(launch: Launch, life: dict[str, Any]) -> None:
    ended = launch(*RUN, scenario={"lives": [life, {}]})
    assert ended.code == 0, ended.err
    assert ended.verbs()[-7:] == ["delete", *TRAINED, "log", "delete"]


def test_retries_have_an_end(launch: Launch) -> None:
    ended = launch(*RUN, "--retries=1", scenario={"lives": [{"codes": [75, 75]}] * 3})
    assert ended.code == 75
    assert ended.verbs().count("create") == 2 and ended.verbs()[-1] == "delete"
    assert "run was preempted, and no retry is left; the same command continues the run" in ended.out


@pytest.mark.parametrize(
    ("codes", "code", "said"),
    [
        ([2, 2], 2, "the trainer refused its input"),
        ([1, 2], 2, "the trainer refused its input"),
        ([3, 3], 3, "it does not fit"),
        ([4, 4], 4, "diverged"),
        ([0, 134], 1, "host0: 0, host1: 134"),
    ],
)
def test_failures_are_not_repeated(launch: Launch, cloud: Path, codes: list[int], code: int, said: str) -> None:
    ended = launch(*RUN, codes=codes)
    assert ended.code == code
    assert ended.verbs() == ["check", *TRAINED, "log", "delete"]
    assert said in ended.out
    (log,) = (cloud / "logs" / "run").glob("*.txt")
    assert "the last words of the run" in log.read_text()


def test_quota_is_one_clear_line(launch: Launch) -> None:
    text = "ERROR: (gcloud...create) RESOURCE_EXHAUSTED: Quota limit 'TPUV5s' has been exceeded. Limit: 0 in region r."
    ended = launch(*RUN, create=text)
    assert ended.code == 1
    assert ended.err.count("\n") == 1 and "Quota limit 'TPUV5s'" in ended.err and "down-all" in ended.err
    assert ended.verbs() == ["check", "create", "delete"]


def test_a_request_that_failed_in_the_queue_is_deleted(launch: Launch) -> None:
    ended = launch(*RUN, states=["WAITING_FOR_RESOURCES", "FAILED"], failure="Quota 'TPUV4s' exhausted.")
    assert ended.code == 1
    assert "FAILED: Quota 'TPUV4s' exhausted." in ended.err and "iam-admin/quotas" in ended.err
    assert ended.verbs() == ["check", "create", "delete"]


def test_an_unknown_state_is_said_and_waited_out(launch: Launch) -> None:
    ended = launch(*RUN, states=["CONTEMPLATING", "CONTEMPLATING", "ACTIVE"])
    assert ended.code == 0
    assert ended.out.count("run is CONTEMPLATING, a state these scripts do not know: waiting") == 1


@pytest.mark.parametrize(
    "life",
    [{"states": ["WAITING_FOR_RESOURCES", "CTRL-C"]}, {"worker": ["running step 1", "CTRL-C"]}],
    ids=["in the queue", "in training"],
)
def test_ctrl_c_leaves_nothing_behind(launch: Launch, life: dict[str, Any]) -> None:
    ended = launch(*RUN, **life)
    assert (ended.code, ended.err) == (130, "launch: stopped\n")
    assert ended.verbs()[-1] == "delete"


def test_ctrl_c_leaves_what_is_to_be_kept(launch: Launch) -> None:
    ended = launch(*RUN, "--keep", worker=["running step 1", "CTRL-C"])
    assert (ended.code, "delete" in ended.verbs()) == (130, False)
    assert "run was kept: 'down' deletes it" in ended.out


def test_a_network_that_fails_for_a_while_changes_nothing(launch: Launch) -> None:
    lost = "ERROR: (gcloud) could not reach the network"
    ended = launch(*RUN, states=["ACTIVE", lost, lost, "ACTIVE"], worker=["silent", "running step 1", "exited"])
    assert (ended.code, ended.verbs()) == (0, ["check", *TRAINED, "log", "delete"])
    assert ended.out.count("still trying") == 1


def test_watches_a_run_that_is_on(launch: Launch) -> None:
    ended = launch(
        *RUN, scenario={"lives": [{"worker": ["running step 1", "running step 2", "exited"]}], "there": True}
    )
    assert (ended.code, ended.verbs()) == (0, ["check", "log", "delete"])
    assert "the run is on: watching it" in ended.out


def test_takes_what_is_ready_and_replaces_what_is_suspended(launch: Launch) -> None:
    ended = launch(*RUN, scenario={"lives": [{"worker": ["idle", "exited"]}], "there": True})
    assert (ended.code, ended.verbs()) == (0, ["check", "scp", "setup", "start", "log", "delete"])


def test_replaces_what_is_suspended(launch: Launch) -> None:
    ended = launch(*RUN, scenario={"lives": [{"states": ["SUSPENDED"]}, {}], "there": True})
    assert (ended.code, ended.verbs()) == (0, ["check", "delete", *TRAINED, "log", "delete"])


def test_never_touches_what_is_another_user_s(launch: Launch) -> None:
    ended = launch(*RUN, scenario={"lives": [{}], "there": True, "owner": "grace"})
    assert (ended.code, ended.verbs()) == (2, ["check"])
    assert "--name=run: belongs to grace; choose another name" in ended.err


def test_a_name_that_was_taken_meanwhile_is_left_alone(launch: Launch) -> None:
    ended = launch(*RUN, create="ERROR: (gcloud) ALREADY_EXISTS: Resource 'run' already exists")
    assert (ended.code, ended.verbs()) == (1, ["check", "create"])
    assert "the name is taken" in ended.err


@pytest.mark.parametrize(("stuck", "code"), [(2, 0), (3, 1)])
def test_what_cannot_be_deleted_is_not_kept_quiet(launch: Launch, stuck: int, code: int) -> None:
    ended = launch(*RUN, scenario={"lives": [{}], "stuck": stuck})
    assert (ended.code, ended.verbs()[-3:]) == (code, ["delete"] * 3)
    assert ("IS STILL THERE AND COSTS MONEY" in ended.out) == (code == 1)


def test_a_worker_that_did_not_install_stops_the_run(launch: Launch) -> None:
    ended = launch(*RUN, setup=1)
    assert (ended.code, ended.verbs()) == (1, ["check", "create", "scp", "setup", "delete"])
    assert "1 of 2 workers answered" in ended.err


@pytest.mark.parametrize(("check", "code"), [("3", 3), ("2", 2), ("1", 1)])
def test_nothing_is_booked_for_what_does_not_fit(launch: Launch, cloud: Path, check: str, code: int) -> None:
    (cloud / "check").write_text(check)
    ended = launch(*RUN, "--check-flags=--steps=9 --search", "--", "--config.data.batch=8", "--watchdog=60")
    assert (ended.code, ended.verbs()) == (code, ["check"])
    asked = "check --config=configs/quickstart.py --hardware=v5e:4x4 --config.data.batch=8 --steps=9 --search"
    assert ended.calls == [asked]


def test_several_slices_are_checked_as_such(launch: Launch) -> None:
    assert "--hardware=3xv5e:4x4" in launch(*RUN, "--num-slices=3").calls[0]


def test_up_only_gets_the_machines(launch: Launch) -> None:
    ended = launch("up", *FLAGS, *REQUEST, "--skip-check", scenario={"lives": [{"states": ["SUSPENDED"]}, {}]})
    assert (ended.code, ended.verbs()) == (0, ["create", "delete", "create"])


def test_up_leaves_no_suspended_request_behind(launch: Launch) -> None:
    ended = launch("up", *FLAGS, *REQUEST, "--skip-check", "--keep", "--retries=0", states=["SUSPENDED"])
    assert (ended.code, ended.verbs()) == (75, ["create", "delete"])


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([0, 0], 0),
        ([75, 1], 75),
        ([1, 2], 2),
        ([130, 130], 130),
        ([0, 1], 1),
        ([75, 4], 4),
        ([76, 137], 75),
        ([76, 76], 75),
        ([76, 1], 1),
        ([76, 2], 2),
        ([], 1),
    ],
)
def test_codes_of_many_workers_are_one(codes: list[int], code: int) -> None:
    assert combined(codes) == code
