"""The branch test on a tiny run: what the branches share, where they part, and what is refused."""

import dataclasses

import numpy as np
import pytest

from sparsejax.cli.main import main
from sparsejax.config import ConfigError
from sparsejax.optim.sparse_adam import sparse_adam_state
from sparsejax.training.branch import BranchTest, check_testable, forms_agree, rewirings, without_growth
from sparsejax.training.branch_rows import CHANGES, FORMS, read_rows
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.drift import masks
from sparsejax.training.loop import train
from sparsejax.training.metrics import read_rows as read_metrics
from sparsejax.training.recipe import values_of
from sparsejax.training.rewire_plan import plan_at
from sparsejax.training.sharding import on_first_device
from tests.training.tiny import quiet_console, tiny_recipe, tiny_run

# Rewirings after 3, 6 and 9; checkpoints after 4, 8 and 12. Scores of two steps and a fading of one, so that a branch
# has everything to do that a run can do. The rate stays, so that stopping early changes nothing.
SETTINGS = {
    "topology_grow": "gradient_sum",
    "topology_score_steps": 2,
    "topology_fade_steps": 1,
    "topology_rate_schedule": "constant",
    "train_keep_last": 3,
    "model_implementation": "transient",
}
LATE = 20_000


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A run that rewires to its end, and its twin that stops after the rewiring of step 3."""
    directory = tmp_path_factory.mktemp("branch")
    for name, changes in (("run", {}), ("stopped", {"topology_stop_fraction": 0.25})):
        run = tiny_run(directory, **SETTINGS, **changes)
        assert train(run, directory / name, extend=False, console=quiet_console()).exit_code == 0
    return directory


@pytest.fixture(scope="module")
def table(directory):
    out = directory / "branch.csv"
    command = ["branch", f"--workdir={directory / 'run'}", "--steps=4", "--at=4", f"--out={out}"]
    assert main(command) == 0
    return read_rows(out)


def losses_of(directory, name):
    rows = read_metrics(directory / name / "metrics.jsonl")
    return {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}


def curve(table, form, change):
    return [row.loss for row in table if (row.form, row.change) == (form, change)]


@pytest.mark.slow
def test_the_whole_rewiring_in_its_own_form_is_the_run_itself(directory, table):
    losses = losses_of(directory, "run")
    assert curve(table, "smet", "rewire") == [losses[step] for step in (6, 7, 8, 9)]


@pytest.mark.slow
def test_no_rewiring_is_the_run_that_does_not_rewire(directory, table):
    losses = losses_of(directory, "stopped")
    assert curve(table, "smet", "none") == [losses[step] for step in (6, 7, 8, 9)]


@pytest.mark.slow
def test_rows_and_excess(table):
    assert len(table) == len(FORMS) * len(CHANGES) * 4
    assert {(row.rewire_step, row.rate, row.run, row.seeds, row.block) for row in table} == {
        (6, 0.3, "run", "0-0-0", "4x4")
    }
    for row in table:
        assert row.excess == row.loss - curve(table, row.form, "none")[row.step - 1]
        assert row.change != "none" or row.excess == 0.0


@pytest.mark.slow
def test_the_branches_part_one_by_one(table):
    # They part before the fading, one step before the rewiring: the first loss is common to all nine.
    assert len({row.loss for row in table if row.step == 1}) == 1
    for form in FORMS:
        none, drop, rewire = (curve(table, form, change)[1] for change in CHANGES)
        # Zero blocks and free slots add the same nothing, in another order of summation.
        assert drop == pytest.approx(rewire, abs=1e-6)
        assert none != pytest.approx(drop, abs=1e-6)
        assert curve(table, form, "drop")[2] != pytest.approx(curve(table, form, "rewire")[2], abs=1e-6)


@pytest.fixture(scope="module")
def parted(directory):
    """The test without fading, parted at the rewiring of step 6 with saturated counts."""
    recipe = tiny_recipe(directory, **SETTINGS | {"topology_fade_steps": 0})

    class Batches:
        def batch(self, number):
            return np.random.default_rng(number).integers(0, 256, (4, 16), np.int32)

    test = BranchTest(recipe, Batches())
    with Checkpoints(directory / "run", keep_last=3, keep_every=0, notice=print, owner=False) as saved:
        state = saved.load(4, on_first_device(recipe.abstract))
    return test, test.parting(state, 6, LATE)


@pytest.mark.slow
def test_the_same_blocks_are_dropped_in_both_branches(parted):
    test, parting = parted
    before = masks(test.recipe, parting.state.topology)
    drop, rewire = (
        masks(test.recipe, test.changed(parting.state, parting.scores, 6, 6, change).topology) for change in CHANGES[1:]
    )
    for name, weight in test.recipe.sparse.items():
        replaced = int(plan_at(test.recipe, 6).drop[name]) * weight.grid.shards
        assert replaced > 0
        assert np.array_equal(drop[name], before[name] & rewire[name]), "what both keep is what the drop leaves"
        layers = before[name].shape[0]
        assert drop[name].sum() == layers * (weight.count - replaced) and rewire[name].sum() == layers * weight.count


@pytest.mark.slow
def test_the_first_update_of_grown_blocks_is_large_under_naive_only(parted):
    test, parting = parted
    state = test.changed(parting.state, parting.scores, 6, 6, "rewire")
    grown = sparse_adam_state(state.opt_state).ages["layers/mlp/up/values"] == 0
    assert 0 < grown.sum() < grown.size and int(sparse_adam_state(state.opt_state).count) == LATE + 6
    moved = {}
    for form in FORMS:
        after, _ = test.train_steps[form](state, test.batches.batch(6), test.rates)
        change = np.abs(values_of(after.params, "mlp.up") - values_of(state.params, "mlp.up"))
        rate = float(test.rates[6]) * test.recipe.weights["mlp.up"].density ** -0.5
        moved[form] = float(np.median(change[np.asarray(grown)])) / rate
    assert moved["naive"] == pytest.approx(0.1 / 0.001**0.5, rel=1e-2)
    assert moved["smet"] == pytest.approx(1 / test.recipe.run.optim.ramp, rel=1e-2)


@pytest.mark.slow
def test_saturated_forms_agree_until_something_grows(parted):
    test, parting = parted
    optim = test.recipe.run.optim
    assert forms_agree(optim, LATE) and not forms_agree(optim, 10_000)
    assert not forms_agree(dataclasses.replace(optim, weight_decay=0.1), LATE)
    for change in ("none", "drop"):
        one, *others = (test.losses(parting, form, change, 2) for form in FORMS)
        assert all(other == one for other in others)
    rows = test.rows("run", parting, 2, LATE)
    assert len(rows) == len(FORMS) * len(CHANGES) * 2
    assert curve(rows, "naive", "drop") == curve(rows, "smet", "drop") == test.losses(parting, "naive", "drop", 2)
    assert curve(rows, "naive", "rewire")[1] != curve(rows, "smet", "rewire")[1]


@pytest.mark.slow
def test_dropping_alone_leaves_slots_that_never_move(parted):
    test, parting = parted
    state = test.changed(parting.state, parting.scores, 6, 6, "drop")
    for number in (6, 7):
        state, _ = test.train_steps["naive"](state, test.batches.batch(number), test.rates)
    active = masks(test.recipe, state.topology)
    for name in test.recipe.sparse:
        nonzero = np.any(np.asarray(values_of(state.params, name)) != 0, axis=(2, 3))
        assert nonzero.sum() == active[name].sum()


def test_fading_starts_where_the_branches_part(tmp_path):
    recipe = tiny_recipe(tmp_path, **SETTINGS | {"topology_fade_steps": 2})
    test = BranchTest(recipe, None)
    # From a checkpoint of step 4 the fading of the rewiring at 6 can just begin; from 5 it would have begun.
    assert [test.rewire_step_after(step, 3) for step in (3, 4, 5, 7, 8)] == [6, 6, 9, 9, None]
    assert rewirings(test, [0, 1, 4, 8], 3) == {3: 1, 6: 4}


def test_without_growth_drops_the_same(tmp_path):
    plan = plan_at(tiny_recipe(tmp_path, **SETTINGS), 6)
    alone = without_growth(plan)
    for name, count in plan.drop.items():
        assert int(alone.drop[name]) == int(plan.grow[name]) == int(count) > 0
        assert int(alone.grow[name]) == int(alone.by_gradient[name]) == 0


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"topology_drop": "none", "topology_grow": "none", "topology_method": "static"}, "never replaces a block"),
        ({"topology_balance": "column"}, "topology.balance=column"),
        ({"outer_every": 3, "mesh_replica": 2}, "outer.every=3"),
    ],
)
def test_runs_without_a_test_are_refused(tmp_path, changes, part):
    with pytest.raises(ConfigError, match=part):
        check_testable(tiny_run(tmp_path, **changes))


@pytest.mark.slow
def test_bad_commands(directory, capsys):
    run = f"--workdir={directory / 'run'}"
    for flags, part in (
        (["--steps=0"], "--steps=0"),
        (["--at=x"], "--at=x"),
        (["--steps=9"], "no rewiring with 9 steps after it"),
        (["--at=5", "--steps=3"], "has no checkpoint of step 5; there are [4, 8, 12]"),
        ([f"--out={directory / 'run' / 'config.json'}"], "is an input"),
    ):
        assert main(["branch", run, *flags]) == 2
        printed = capsys.readouterr().err
        assert part in printed and printed.count("\n") == 1
