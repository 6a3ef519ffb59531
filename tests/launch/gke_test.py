"""What a GKE cluster gets."""

import shlex
from typing import Any

import pytest
import yaml

from launch import gke
from launch.job import Job
from launch.slices import parse_slice

JOB = Job("configs/a.py:size=1b", "gs://bucket/run", ("--config.data.name=two words",), "gs://bucket/cache")
COMMAND = ["bash", "launch/run_tpu.sh", "--config=configs/a.py:size=1b", "--workdir=gs://bucket/run", "--distributed"]


def jobset(hardware: str = "v5p:4x4x4", num_slices: int = 1, spot: bool = False) -> dict[str, Any]:
    return gke.jobset("run", "image", JOB, parse_slice(hardware), num_slices, 7, spot)


@pytest.mark.parametrize(("hardware", "pods", "chips"), [("v5p:4x4x4", 16, 4), ("v5e:2x4", 2, 4), ("v6e:1x1", 1, 1)])
def test_one_pod_a_host_asks_for_all_chips_of_the_slice(hardware: str, pods: int, chips: int) -> None:
    (job,) = jobset(hardware)["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    resources = spec["template"]["spec"]["containers"][0]["resources"]
    assert (spec["parallelism"], spec["completions"]) == (pods, pods)
    assert resources["requests"] == resources["limits"] == {"google.com/tpu": chips}
    assert pods * chips == parse_slice(hardware).chips


def test_slices_are_jobs_of_one_set() -> None:
    (job,) = jobset(num_slices=3)["spec"]["replicatedJobs"]
    assert job["replicas"] == 3


def test_only_what_another_try_would_repeat_ends_the_set() -> None:
    """The Job fails for the reason PodFailurePolicy on these codes, and for one that restarts on others."""
    spec = jobset()["spec"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert spec["failurePolicy"]["maxRestarts"] == 7
    assert rule == {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (final,) = job["podFailurePolicy"]["rules"]
    pod = job["template"]["spec"]
    assert final["onExitCodes"] == {
        "containerName": pod["containers"][0]["name"],
        "operator": "In",
        "values": [2, 3, 4],
    }
    assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")


@pytest.mark.parametrize("spot", [False, True])
def test_spot_nodes_are_asked_for_and_borne(spot: bool) -> None:
    pod = jobset(spot=spot)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert ("cloud.google.com/gke-spot" in pod["nodeSelector"]) == ("tolerations" in pod) == spot


def test_the_manifest_reads_back() -> None:
    made = jobset(num_slices=2, spot=True)
    text = gke.to_yaml(made)
    assert yaml.safe_load(text) == made
    assert made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["command"] == [
        *COMMAND,
        "--config.data.name=two words",
    ]


@pytest.mark.parametrize(
    "tree", [{"a": [{"b": [{"c": 1}, {"d": "e: f"}]}, {}], "g": []}, {"a": "no", "b": "1e3", "c": {}}]
)
def test_yaml_keeps_every_tree(tree: dict[str, Any]) -> None:
    assert yaml.safe_load(gke.to_yaml(tree)) == tree


def test_xpk_runs_the_same_command_and_restarts_what_was_saved() -> None:
    call = gke.xpk("run", "image", JOB, parse_slice("v5e:16x16"), 2, 7, ["--cluster=c", "--spot"])
    flags = dict(flag.partition("=")[::2] for flag in call[3:])
    assert call[:3] == ["xpk", "workload", "create"]
    assert shlex.split(flags["--command"]) == [*COMMAND, "--config.data.name=two words"]
    assert (flags["--tpu-type"], flags["--num-slices"]) == ("v5litepod-256", "2")
    assert (flags["--max-restarts"], flags["--restart-on-exit-codes"]) == ("7", "75,76")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--name=A", "--name=A: write at most 40 lower-case letters, digits and hyphens, a letter first"),
        ("--workdir=/tmp/a", "--workdir=/tmp/a: several hosts need one run directory"),
        ("--hardware=v5p:9", "--hardware=v5p:9: no accelerator type has this shape"),
        ("--config=none.py", "--config=none.py: there is no such file"),
        ("--num-slices=0", "argument --num-slices: 0 must be 1 to 4096"),
    ],
)
def test_refuses_in_one_line(capsys: pytest.CaptureFixture[str], flag: str, message: str) -> None:
    given = ["--name=a", "--image=i", "--hardware=v5e:4x4", "--config=configs/quickstart.py", "--workdir=gs://b/r"]
    assert gke.main(["manifest", *given, flag]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith(f"launch: {message}")
