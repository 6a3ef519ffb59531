"""Two real processes that train one run: they stop together, go on in any number, and notice when one is gone."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.loop import train
from sparsejax.training.lost_peers import LOST_PEER
from sparsejax.training.metrics import read_rows
from tests.training.one_of_two import open_dense
from tests.training.tiny import quiet_console, tiny_run, write_text

SCRIPT = Path(__file__).with_name("one_of_two.py")
# What is compiled is what a test costs: one layer with a sparse MLP; rewirings only where a test is slow anyway.
QUICK = {
    "train_steps": 6,
    "train_checkpoint_every": 4,
    "model_layers": 1,
    "mesh_fsdp": 2,
    "topology_every": 100,
    "topology_rules": ("attention.*=1",),
}
REWIRED = QUICK | {"topology_every": 2, "topology_rules": ()}
JOB = {
    "strike": None,
    "step": 0,
    "init_timeout": 60,
    "heartbeat_timeout": 10,
    "watchdog": 0,
    "changes": QUICK,
}


class Pair:
    """Two processes on one run directory; ``process_1`` are the keys in which the jobs differ."""

    def __init__(self, directory, process_0=None, process_1=None):
        shared = JOB | {"directory": str(directory), "workdir": str(directory / "run"), "port": free_port()}
        jobs = [shared | {"process": 0} | (process_0 or {}), shared | {"process": 1} | (process_1 or {})]
        self.processes = [start(job) for job in jobs]

    def ends(self):
        """Exit code and output of both."""
        try:
            outputs = [process.communicate(timeout=250)[0] for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [process.returncode for process in self.processes], outputs


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(job):
    flags = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), json.dumps(job)],
        env=os.environ | {"XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def as_one(directory, **changes):
    """One process goes on; returns its exit code."""
    run = tiny_run(directory, **changes)
    return train(run, directory / "run", extend=False, console=quiet_console(), opens=open_dense).exit_code


def fresh(directory, text):
    """``directory`` with the text of another, and no run."""
    for name in ("text.txt", "validation.txt"):
        shutil.copy(text / name, directory / name)
    return directory


def losses(directory):
    rows = read_rows(directory / "run" / "metrics.jsonl")
    return {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}


def validation_loss(directory):
    return json.loads((directory / "run" / "result.json").read_text())["validation_loss"]


def saved_steps(directory):
    with Checkpoints(directory / "run", keep_last=9, keep_every=0, notice=print, owner=False) as checkpoints:
        return checkpoints.steps


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run that one process with two devices does without a stop."""
    directory = tmp_path_factory.mktemp("straight")
    assert as_one(directory, **QUICK) == 0
    return directory


@pytest.fixture(scope="module")
def rewired(tmp_path_factory):
    """The same with rewirings after steps 2 and 4."""
    directory = tmp_path_factory.mktemp("rewired")
    assert as_one(directory, **REWIRED) == 0
    return directory


def test_sigterm_to_one_stops_both_at_the_same_step_and_one_process_goes_on(straight, tmp_path):
    directory = fresh(tmp_path, straight)
    codes, outputs = Pair(directory, process_1={"strike": "SIGTERM", "step": 1}).ends()
    assert codes == [75, 75], "\n".join(outputs)
    # Asked after step 1; both learn of it while step 2 runs.
    assert saved_steps(directory) == [2]
    assert "stopped on request after step 2, saved" in outputs[0] and "stopped" not in outputs[1]
    assert all(f"process {i} of 2 on 1 host" in text and "fsdp 2 x" in text for i, text in enumerate(outputs))
    assert list(losses(directory)) == [1, 2]
    assert as_one(directory, **QUICK) == 0
    assert losses(directory) == losses(straight)
    assert validation_loss(directory) == validation_loss(straight)


@pytest.mark.slow
def test_two_processes_go_on_where_two_stopped_with_rewirings(rewired, tmp_path):
    directory = fresh(tmp_path, rewired)
    stopped, outputs = Pair(directory, {"strike": "SIGINT", "step": 1, "changes": REWIRED}, {"changes": REWIRED}).ends()
    assert stopped == [130, 130], "\n".join(outputs)
    finished, outputs = Pair(directory, {"changes": REWIRED}, {"changes": REWIRED}).ends()
    assert finished == [0, 0], "\n".join(outputs)
    assert losses(directory) == losses(rewired)
    assert validation_loss(directory) == validation_loss(rewired)
    # The same command again only reports.
    before = (directory / "run" / "metrics.jsonl").read_bytes()
    assert as_one(directory, **REWIRED) == 0
    assert (directory / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 4])
def test_one_process_goes_on_with_fewer_or_more_devices(rewired, tmp_path, fsdp):
    directory = fresh(tmp_path, rewired)
    stopped, outputs = Pair(
        directory, {"changes": REWIRED}, {"strike": "SIGTERM", "step": 2, "changes": REWIRED}
    ).ends()
    assert stopped == [75, 75], "\n".join(outputs)
    assert as_one(directory, **REWIRED | {"mesh_fsdp": fsdp}) == 0
    assert losses(directory) == pytest.approx(losses(rewired), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["magnitude", "activation"])
def test_two_processes_start_from_dense_weights_and_learn_from_them(tmp_path, criterion):
    alone, both = tmp_path / "alone", tmp_path / "both"
    changes = REWIRED | {"init_from": "dense", "init_criterion": criterion, "init_distill_weight": 0.5}
    changes |= {"train_steps": 3, "init_calibration_tokens": 128}
    for directory in (alone, both):
        directory.mkdir()
    assert as_one(alone, **changes) == 0
    stopped, outputs = Pair(both, {"strike": "SIGTERM", "step": 1, "changes": changes}, {"changes": changes}).ends()
    assert stopped == [75, 75], "\n".join(outputs)
    finished, outputs = Pair(both, {"changes": changes}, {"changes": changes}).ends()
    assert finished == [0, 0], "\n".join(outputs)
    assert losses(both) == pytest.approx(losses(alone), rel=1e-6) and len(losses(both)) == 3
    digests = [json.loads((each / "run" / "result.json").read_text())["started_from"] for each in (alone, both)]
    assert digests[0] == digests[1] != ""


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_with_a_line_and_a_code(straight, tmp_path, killed):
    often = {"changes": QUICK | {"train_checkpoint_every": 2}}
    jobs = [often | ({"strike": "SIGKILL", "step": 5} if process == killed else {}) for process in (0, 1)]
    codes, outputs = Pair(fresh(tmp_path, straight), *jobs).ends()
    assert codes[killed] == -9 and codes[1 - killed] == LOST_PEER, "\n".join(outputs)
    last = outputs[1 - killed].splitlines()[-1]
    assert last.startswith(f"sparsejax: process {1 - killed} of 2: another process is gone")
    # The save of step 4 may not have been finished; it waited for that of step 2.
    assert saved_steps(tmp_path)[0] == 2
    finished, outputs = Pair(tmp_path, often, often).ends()
    assert finished == [0, 0], "\n".join(outputs)
    assert losses(tmp_path) == losses(straight)


@pytest.mark.slow
def test_a_process_that_hangs_ends_both_with_all_stacks(straight, tmp_path):
    watched = {"watchdog": 5}
    codes, outputs = Pair(fresh(tmp_path, straight), watched | {"strike": "hang", "step": 2}, watched).ends()
    assert codes == [LOST_PEER, LOST_PEER], "\n".join(outputs)
    assert all("no step finished for" in output for output in outputs)
    (stacks,) = (tmp_path / "run").glob("stacks-process-0-of-2-*.txt")
    assert "in wait_for_ever" in stacks.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_whose_peer_never_comes_gives_up(tmp_path, process):
    job = JOB | {"directory": str(tmp_path), "workdir": str(tmp_path / "run"), "port": free_port()}
    alone = start(job | {"process": process, "init_timeout": 3})
    output = alone.communicate(timeout=120)[0]
    assert alone.returncode == LOST_PEER
    assert "did not all reach 127.0.0.1:" in output.splitlines()[-1] and "--init_timeout=3 s" in output.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("difference", ["workdir", "config", "data"])
def test_processes_that_differ_refuse_to_start(straight, tmp_path, difference):
    directory = fresh(tmp_path, straight)
    other, expected = {
        "workdir": ({"workdir": str(directory / "elsewhere")}, "is not the directory that process 0 writes to"),
        "config": ({"changes": QUICK | {"optim_lr": 0.5}}, "--config: process 1 has another one than process 0"),
        "data": (
            {"changes": QUICK | {"data_path": str(directory / "other.txt")}},
            "data_digest: process 1 has another one",
        ),
    }[difference]
    write_text(directory / "other.txt", seed=5)
    (directory / "elsewhere").mkdir()
    codes, outputs = Pair(directory, process_1=other).ends()
    assert codes == [1, 1], "\n".join(outputs)
    assert all("SharedError" in output and expected in output for output in outputs)
    assert not (directory / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_two_processes_fall_back_from_a_broken_checkpoint(straight, tmp_path):
    directory = fresh(tmp_path, straight)
    assert Pair(directory, process_1={"strike": "SIGTERM", "step": 4}).ends()[0] == [75, 75]
    assert saved_steps(directory) == [4, 5]
    newest = directory / "run" / "checkpoints" / "5"
    files = [path for path in newest.rglob("*") if path.is_file() and path.parent.name == "d"]
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    codes, outputs = Pair(directory).ends()
    assert codes == [0, 0], "\n".join(outputs)
    assert "checkpoint 5 is broken" in outputs[0] and "continuing from step 4" in outputs[0]
    assert (directory / "run" / "checkpoints-broken" / "5").is_dir()
    assert losses(directory) == losses(straight)
