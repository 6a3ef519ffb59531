"""A run that is killed and continued is the run that was never stopped, bit for bit."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.loop import train
from sparsejax.training.metrics import read_rows
from sparsejax.training.sharding import on_first_device
from tests.training.tiny import quiet_console, tiny_recipe, tiny_run

SCRIPT = Path(__file__).with_name("killed_run.py")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The uninterrupted run: 12 steps, rewirings after 3, 6 and 9, checkpoints after 4, 8 and 12."""
    directory = tmp_path_factory.mktemp("straight")
    outcome = train(tiny_run(directory), directory / "run", extend=False, console=quiet_console())
    assert outcome.exit_code == 0
    return directory


def start(directory, moment, step):
    # The environment is inherited: what one process compiled, the next one reads from the session's cache.
    command = [sys.executable, str(SCRIPT), str(directory), moment, str(step)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def losses(directory):
    rows = read_rows(directory / "run" / "metrics.jsonl")
    return {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}


def final_state(directory):
    abstract = on_first_device(tiny_recipe(directory).abstract)
    with Checkpoints(directory / "run", keep_last=2, keep_every=0, notice=print) as checkpoints:
        return checkpoints.restore(lambda _: abstract)


def assert_same_run(one, other):
    assert losses(one) == losses(other)
    a, b = final_state(one), final_state(other)
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def fresh(tmp_path, straight):
    """The same text, no run."""
    for name in ("text.txt", "validation.txt"):
        shutil.copy(straight / name, tmp_path / name)
    return tmp_path


@pytest.mark.slow
def test_sigkill_before_at_and_after_a_rewiring_and_during_a_save(straight, tmp_path):
    directory = fresh(tmp_path, straight)
    # Killed before its first checkpoint, twice; then after the rewiring of step 6, while saving step 8, and after 9's.
    for moment, step in (("step", 2), ("step", 3), ("rewire", 6), ("save", 8), ("rewire", 9), ("step", 11)):
        killed = start(directory, moment, step)
        assert killed.returncode == -9, killed.stderr[-2000:]
    finished = start(directory, "never", 0)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert_same_run(directory, straight)


def test_sigterm_saves_and_exits_75_and_the_rest_is_equal(straight, tmp_path):
    directory = fresh(tmp_path, straight)
    stopped = start(directory, "term", 5)
    assert stopped.returncode == 75, stopped.stderr[-2000:]
    with Checkpoints(directory / "run", keep_last=2, keep_every=0, notice=print) as checkpoints:
        assert checkpoints.steps[-1] == 5
    assert start(directory, "never", 0).returncode == 0
    assert_same_run(directory, straight)
