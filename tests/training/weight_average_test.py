"""The average of the weights as a training option: what it is, that it changes nothing else, and where it goes."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from sparsejax.config import ConfigError, resolve
from sparsejax.models.accounting import memory
from sparsejax.optim.weight_average import averaged_weights, newest_share
from sparsejax.planning.footprint import state_bytes
from sparsejax.topology.blocks import positions_of
from sparsejax.training import programs
from sparsejax.training.growth_scores import NO_SCORES
from sparsejax.training.loop import train
from sparsejax.training.memory import measure, nbytes
from sparsejax.training.metrics import read_rows
from sparsejax.training.recipe import index_of, values_of
from sparsejax.training.restore import restore_run
from sparsejax.training.rewire_plan import is_due, plan_at
from sparsejax.training.sharding import specs
from tests.training.meshes import ONE, batch, mesh_recipe, train_steps
from tests.training.tiny import quiet_console, tiny_recipe, tiny_run, tiny_settings

DECAY = 0.75


def steps_of(recipe, count):
    """The state after each of so many steps, on the host, and after the rewiring of that step if there was one."""
    state = programs.init_state(recipe)
    step, rewire = programs.train_step(recipe), programs.rewire_step(recipe)
    for number in range(count):
        state, _ = step(state, batch(number, rows=4), recipe.rates)
        trained = jax.device_get(state)
        if is_due(recipe, number + 1):
            state, _ = rewire(state, plan_at(recipe, number + 1), NO_SCORES)
        yield trained, jax.device_get(state)


def by_place(state, recipe, tree, name="mlp.up"):
    """``{place: block}`` of the first layer of a kind."""
    places = np.asarray(
        positions_of(jax.tree.map(lambda leaf: leaf[0], index_of(state.topology, name)), grid_of(recipe, name))
    )
    return dict(zip(places.reshape(-1).tolist(), np.asarray(values_of(tree, name))[0], strict=True))


def grid_of(recipe, name):
    return recipe.sparse[name].grid


@pytest.mark.slow
@pytest.mark.parametrize("regrow_value", ["zero", "init"])
def test_every_block_is_averaged_where_it_goes_and_a_regrown_one_starts_at_its_value(tmp_path, regrow_value):
    recipe = tiny_recipe(tmp_path, optim_ema_decay=DECAY, topology_regrow_value=regrow_value)
    mean, regrown = {}, 0
    for count, (trained, after) in enumerate(steps_of(recipe, 7), start=1):
        share = float(newest_share(DECAY, np.int32(count)))
        weights = by_place(trained, recipe, trained.params)
        mean = {place: (1 - share) * mean.get(place, 0.0) + share * block for place, block in weights.items()}
        found = by_place(trained, recipe, averaged_weights(trained.opt_state))
        assert mean.keys() == found.keys()
        for place, block in found.items():
            np.testing.assert_allclose(block, mean[place], atol=1e-6)
        now = by_place(after, recipe, after.params)
        regrown += len(now.keys() - mean.keys())
        mean = {place: mean[place] if place in mean else block for place, block in now.items()}
    assert regrown > 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("averaged")
    run = tiny_run(directory, optim_ema_decay=DECAY)
    assert train(run, directory / "run", extend=False, console=quiet_console()).exit_code == 0
    return directory, run


@pytest.mark.slow
def test_it_is_evaluated_saved_and_continued(finished, tmp_path):
    directory, run = finished
    workdir = directory / "run"
    (row,) = [row for row in read_rows(workdir / "metrics.jsonl") if row["kind"] == "eval"]
    raw, averaged = restore_run(workdir, print), restore_run(workdir, print, weights="ema")
    assert row["ema_loss"] != row["loss"] == json.loads((workdir / "result.json").read_text())["validation_loss"]
    found = averaged_weights(raw.state.opt_state)
    assert jax.tree.all(jax.tree.map(np.array_equal, averaged.state.params, found))
    # The last save is that of step 12; the run is cut back to step 8 and goes on to the same bits.
    (workdir / "checkpoints" / "12").rename(tmp_path / "12")
    (workdir / "result.json").rename(tmp_path / "result.json")
    assert train(run, workdir, extend=False, console=quiet_console()).exit_code == 0
    again = restore_run(workdir, print).state
    assert jax.tree.all(jax.tree.map(np.array_equal, again, raw.state))


@pytest.mark.slow
def test_a_run_without_it_has_none_and_is_the_same_in_everything_else(finished):
    directory, _ = finished
    old, run = directory / "old", tiny_run(directory)
    assert train(run, old, extend=False, console=quiet_console()).exit_code == 0
    with_it, without = restore_run(directory / "run", print).state, restore_run(old, print).state
    assert averaged_weights(without.opt_state) is None
    assert jax.tree.all(jax.tree.map(np.array_equal, with_it.params, without.params))
    assert jax.tree.all(jax.tree.map(np.array_equal, with_it.topology, without.topology))
    assert "ema_loss" not in read_rows(old / "metrics.jsonl")[-1]
    with pytest.raises(ConfigError, match=r"^--weights=ema: .* keeps no average of its weights; train it with "):
        restore_run(old, print, weights="ema")
    # As a run directory from before there was such a setting.
    manifest = json.loads((old / "config.json").read_text())
    del manifest["config"]["optim"]["ema_decay"], manifest["check"]
    (old / "config.json").write_text(json.dumps(manifest))
    assert restore_run(old, print).run == run


def test_its_bytes_are_counted(tmp_path):
    recipe = tiny_recipe(tmp_path, optim_ema_decay=DECAY)
    maskable, whole = measure(recipe, recipe.abstract)
    expected = memory(recipe.shape, [each.counted for each in recipe.weights.values()], rewired=True, averaged=True)
    assert (maskable.moments, whole.moments) == (expected.maskable.moments, expected.total.moments)
    assert whole.moments == 3 * nbytes(recipe.abstract.params)
    found, without = (state_bytes(each.abstract) for each in (recipe, tiny_recipe(tmp_path)))
    changed = {kind for kind in found if found[kind] != without[kind]}
    assert changed == {"moments", "their moments", "counters"}
    assert sum(found.values()) - sum(without.values()) == nbytes(recipe.abstract.params) + 4


def test_it_lives_where_the_weights_live(tmp_path):
    recipe = mesh_recipe(tmp_path, (2, 2, 2), optim_ema_decay=DECAY)
    places = specs(recipe, recipe.abstract)
    assert averaged_weights(places.opt_state) == places.params


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_eight_devices_average_as_one(tmp_path, shape):
    changes = {"optim_ema_decay": DECAY, "topology_every": 2}
    recipe, one = mesh_recipe(tmp_path, shape, **changes), mesh_recipe(tmp_path, ONE, **changes)
    (losses, state), (expected, alone) = train_steps(recipe, 5), train_steps(one, 5)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    in_one = programs.resize_step(recipe.sparse, one)(jax.device_get(state))
    for tree, wanted in zip(
        *(jax.tree.leaves(averaged_weights(each.opt_state)) for each in (in_one, alone)), strict=True
    ):
        np.testing.assert_allclose(tree, wanted, atol=2e-5)


def test_replicas_that_train_apart_keep_none(tmp_path):
    settings = tiny_settings(tmp_path, optim_ema_decay=0.9, outer_every=3, mesh_replica=2)
    with pytest.raises(ConfigError, match=r"^optim.ema_decay=0.9: replicas that train apart .* or outer.every=1$"):
        resolve(settings)
    run = resolve(tiny_settings(tmp_path, optim_ema_decay=0.9))
    assert dataclasses.replace(run.optim, ema_decay=0.0) == resolve(tiny_settings(tmp_path)).optim
