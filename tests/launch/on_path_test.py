"""The launcher as a user runs it: a process that finds ``gcloud`` on PATH and gets real signals."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.launch.conftest import ROOT, RUN, Launch

ATTEMPT = ["create", "scp", "setup", "start"]
QUOTA = "ERROR: (gcloud.compute.tpus) Quota limit 'TPUV5s' has been exceeded. Limit: 0 in region r."
SAVED: dict[str, Any] = {"codes": [75, 75]}

# Name -> the lives of the resource, the exit code, and what was called after the fit check.
SCENARIOS: dict[str, tuple[list[dict[str, Any]], int, list[str]]] = {
    "waiting, active, finished": ([{"states": ["WAITING_FOR_RESOURCES", "ACTIVE"]}], 0, [*ATTEMPT, "log", "delete"]),
    "preempted twice, finished": (
        [SAVED, {"nodes": ["READY", "PREEMPTED"]}, {}],
        0,
        [*ATTEMPT, "delete", *ATTEMPT, "delete", *ATTEMPT, "log", "delete"],
    ),
    "quota error": ([{"create": QUOTA}], 1, ["create", "delete"]),
    "user error": ([{"codes": [2, 2]}], 2, [*ATTEMPT, "log", "delete"]),
    "Ctrl-C": ([{"states": ["WAITING_FOR_RESOURCES", "CTRL-C"]}], 130, ["create", "delete"]),
    "unknown state": ([{"states": ["CONTEMPLATING", "ACTIVE"]}], 0, [*ATTEMPT, "log", "delete"]),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(launch_process: Launch, name: str) -> None:
    lives, code, verbs = SCENARIOS[name]
    ended = launch_process(*RUN, scenario={"lives": lives})
    assert (ended.code, ended.verbs()) == (code, ["check", *verbs]), ended.out + ended.err
    assert "Traceback" not in ended.err


def test_a_second_ctrl_c_does_not_stop_the_clean_up(launch_process: Launch) -> None:
    scenario = {"lives": [{"states": ["WAITING_FOR_RESOURCES", "CTRL-C"]}], "impatient": True}
    ended = launch_process(*RUN, scenario=scenario)
    assert (ended.code, ended.verbs()) == (130, ["check", "create", "delete"])
    assert "run is being deleted" in ended.out


def test_without_gcloud_one_line_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launch.tpu", *RUN, "--skip-check", f"--logs={tmp_path}"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr.startswith("launch: gcloud was not found: install the Google Cloud CLI")
        and done.stderr.count("\n") == 1
    )


def test_needs_nothing_but_python() -> None:
    """A laptop has no jax: every module of launch/ loads without the packages that are installed."""
    modules = ", ".join(f"launch.{path.stem}" for path in sorted((ROOT / "launch").glob("*.py")))
    done = subprocess.run([sys.executable, "-S", "-c", f"import {modules}"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
