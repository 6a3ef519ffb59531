"""A run that starts from another run's checkpoint is the run that was trained from its first step, bit for bit."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.data.row_plan import RowPlan
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.loop import train
from sparsejax.training.metrics import read_rows
from sparsejax.training.sharding import on_first_device
from sparsejax.training.siblings import are_siblings
from sparsejax.training.trunk import common_steps, start_from
from sparsejax.training.workdir import add_commits
from tests.training.tiny import quiet_console, tiny_recipe, tiny_run

# Warm-up of two steps, whatever the length; the rate falls over the last quarter; no rewiring from half way on.
HOLD = {
    "optim_schedule": "wsd",
    "optim_decay_fraction": 0.25,
    "topology_rate_schedule": "constant",
    "topology_every": 2,
    "topology_stop_fraction": 0.5,
    "train_checkpoint_every": 2,
    "train_keep_every": 2,
}


def of_length(steps, **changes):
    return {**HOLD, "train_steps": steps, "optim_warmup_fraction": 2 / steps, **changes}


def final_state(recipe, workdir):
    with Checkpoints(workdir, keep_last=2, keep_every=0, notice=print) as checkpoints:
        return checkpoints.restore(lambda _: on_first_device(recipe.abstract))


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """Sixteen steps, a checkpoint after every second one."""
    directory = tmp_path_factory.mktemp("trunk")
    outcome = train(tiny_run(directory, **of_length(16)), directory / "long", extend=False, console=quiet_console())
    assert outcome.exit_code == 0
    add_commits(directory / "long", ["of-the-trunk"])
    return directory


def test_a_branch_is_the_run_it_would_have_been(trunk):
    short = tiny_run(trunk, **of_length(8))
    console = quiet_console()
    assert train(short, trunk / "straight", extend=False, console=quiet_console()).exit_code == 0
    before = sorted(path.name for path in (trunk / "long").rglob("*"))
    assert train(short, trunk / "branch", extend=False, console=console, trunks=[trunk / "long"]).exit_code == 0
    # The trunk rewires after step 6, this run for the last time after step 4: step 4 is the last they share.
    assert f"starting from step 4 of {trunk / 'long'}" in console.file.getvalue()
    assert sorted(path.name for path in (trunk / "long").rglob("*")) == before
    recipe = tiny_recipe(trunk, **of_length(8))
    states = [final_state(recipe, trunk / name) for name in ("straight", "branch")]
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, states), strict=True))
    straight, branch = (json.loads((trunk / name / "result.json").read_text()) for name in ("straight", "branch"))
    assert {key for key in straight if straight[key] != branch[key]} == {"name", "seconds", "git_commits", "check"}
    assert set(branch["git_commits"].split(",")) - set(straight["git_commits"].split(",")) == {"of-the-trunk"}
    losses = [
        [(row["step"], row["loss"]) for row in read_rows(trunk / name / "metrics.jsonl") if row["kind"] == "train"]
        for name in ("straight", "branch")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 8


@pytest.mark.slow
def test_a_run_with_a_checkpoint_of_its_own_continues_from_it(trunk):
    run = tiny_run(trunk, **of_length(8))
    workdir = trunk / "own"
    assert train(run, workdir, extend=False, console=quiet_console()).exit_code == 0
    console = quiet_console()
    assert train(run, workdir, extend=False, console=console, trunks=[trunk / "long"]).exit_code == 0
    assert "continuing from step 8" in console.file.getvalue()
    assert "starting from" not in console.file.getvalue()


def test_the_steps_that_two_runs_share(tmp_path):
    def shared(one, other):
        return common_steps(tiny_recipe(tmp_path, **one), tiny_recipe(tmp_path, **other))

    still = {"topology_stop_fraction": 0.0}
    # Rates of 8 steps: up to index 5 they hold, so six updates are equal; of 16 steps up to index 11.
    assert shared(of_length(8, **still), of_length(16, **still)) == 6
    assert shared(of_length(16, **still), of_length(32, **still)) == 12
    # Rewirings after 2 and 4 are common, the one after 6 is not; scores of a rewiring begin a step before it.
    assert shared(of_length(8), of_length(16)) == shared(of_length(16), of_length(8)) == 4
    assert shared(of_length(8), of_length(16, topology_rate=0.4)) == 0
    assert shared(of_length(8, optim_warmup_fraction=0.5, **still), of_length(16, **still)) == 0
    assert shared(of_length(8, optim_lr=2e-2), of_length(16)) == 0
    assert shared(of_length(8, seeds_data=1), of_length(16)) == 0
    assert shared(of_length(16), of_length(16)) == 16
    fading = {"topology_every": 4, "topology_stop_fraction": 0.75, "topology_fade_steps": 2}
    # Of 16 steps: rewirings after 4, 8 and 12; of 8 steps: after 4; fading towards 8 begins after step 5.
    assert shared(of_length(8, **fading), of_length(16, **fading)) == 5


def test_what_depends_on_the_length_in_other_ways_is_never_shared(tmp_path):
    dense_starts = [tiny_run(tmp_path, **of_length(steps, init_from="hub")) for steps in (8, 16)]
    assert not are_siblings(*dense_starts)
    falls = {"topology_density_schedule": "linear", "topology_drop": "magnitude", "topology_grow": "none"}
    runs = [tiny_run(tmp_path, **of_length(steps, **falls)) for steps in (8, 16)]
    assert not are_siblings(*runs)
    assert are_siblings(tiny_run(tmp_path, **of_length(8)), tiny_run(tmp_path, **of_length(16)))


def test_trunks_that_cannot_serve(trunk, tmp_path):
    recipe = tiny_recipe(trunk, **of_length(8))
    manifest = json.loads((trunk / "long" / "config.json").read_text())
    digests = manifest["data_digest"], manifest["tokenizer_digest"]
    plan = RowPlan(20, 4, epochs=0, steps=8, filled=())
    assert start_from([], recipe, plan, digests, print) is None
    assert start_from([trunk / "long"], recipe, plan, ("other text", digests[1]), print) is None
    other = dataclasses.replace(recipe, run=tiny_run(trunk, **of_length(8, seeds_init=1)))
    assert start_from([trunk / "long"], other, plan, digests, print) is None
    assert start_from([tmp_path], recipe, plan, digests, print) is None
    with pytest.raises(ConfigError, match="holds no run"):
        run = tiny_run(trunk, **of_length(8))
        train(run, trunk / "none", extend=False, console=quiet_console(), trunks=[tmp_path])
    assert not (trunk / "none" / "config.json").exists()
    state, used = start_from([trunk / "long"], recipe, plan, digests, print)
    assert (int(state.step), used) == (4, trunk / "long")


def test_a_broken_checkpoint_of_a_trunk_leads_to_the_one_before(trunk, tmp_path):
    shutil.copytree(trunk / "long", tmp_path / "long")
    shutil.rmtree(tmp_path / "long" / "checkpoints" / "4" / "state")
    recipe, notices = tiny_recipe(trunk, **of_length(8)), []
    manifest = json.loads((tmp_path / "long" / "config.json").read_text())
    digests = manifest["data_digest"], manifest["tokenizer_digest"]
    plan = RowPlan(20, 4, epochs=0, steps=8, filled=())
    state, _ = start_from([tmp_path / "long"], recipe, plan, digests, notices.append)
    assert int(state.step) == 2 and len(notices) == 2 and "step 4 cannot be read" in notices[0]
