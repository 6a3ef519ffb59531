"""A checkpoint continues on any mesh: the same bits of weights and topology, the same batches, the same losses."""

import json
import shutil

import jax
import numpy as np
import pytest

from sparsejax.training import programs
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.elastic import load_step, restore_newest
from sparsejax.training.loop import train
from sparsejax.training.metrics import read_rows
from sparsejax.training.resize import resize
from sparsejax.training.sharding import state_shardings
from tests.training.meshes import ONE, WIDTHS, mesh_recipe
from tests.training.tiny import quiet_console, tiny_run


def opened(workdir):
    return Checkpoints(workdir, keep_last=3, keep_every=0, notice=print)


def one_device(recipe, state, one):
    """The state in the slots of one device, on the host."""
    return jax.jit(lambda s: resize(s, recipe.sparse, one.sparse))(jax.device_get(state))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A state of the mesh 1x8x1, where every share's four blocks have eight slots, and the directory that holds it."""
    directory = tmp_path_factory.mktemp("elastic")
    recipe = mesh_recipe(directory, (1, 8, 1))
    assert {weight.cut for weight in recipe.sparse.values()} == {"slots"}
    state = programs.init_state(recipe)
    with opened(directory / "run") as checkpoints:
        checkpoints.save(state, recipe.run.to_dict())
        checkpoints.wait()
    return directory, one_device(recipe, state, mesh_recipe(directory, ONE))


@pytest.mark.parametrize("shape", [ONE, (1, 4, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_a_checkpoint_is_the_same_on_every_mesh(saved, shape):
    directory, wanted = saved
    recipe = mesh_recipe(directory, shape)
    with opened(directory / "run") as checkpoints:
        state = restore_newest(checkpoints, recipe)
        again = load_step(checkpoints, recipe, 0)
    found = one_device(recipe, state, mesh_recipe(directory, ONE))
    assert jax.tree.all(jax.tree.map(np.array_equal, found, wanted))
    assert jax.tree.all(jax.tree.map(np.array_equal, state, again))
    if recipe.mesh is not None:
        places = jax.tree.map(
            lambda leaf, sharding: leaf.sharding.is_equivalent_to(sharding, leaf.ndim), state, state_shardings(recipe)
        )
        assert jax.tree.all(places)


@pytest.mark.slow
def test_a_checkpoint_from_before_there_were_meshes_is_that_of_one_device(tmp_path):
    recipe = mesh_recipe(tmp_path, ONE)
    config = recipe.run.to_dict()
    del config["mesh"]
    state = programs.init_state(recipe)
    with opened(tmp_path / "run") as checkpoints:
        checkpoints.save(state, config)
        checkpoints.wait()
        found = restore_newest(checkpoints, mesh_recipe(tmp_path, (1, 8, 1)))
    assert np.array_equal(jax.device_get(found.params["norm"]["scale"]), state.params["norm"]["scale"])


def run_on(directory, workdir, fsdp):
    run = tiny_run(directory, **(WIDTHS | {"train_steps": 12, "topology_every": 3, "mesh_fsdp": fsdp}))
    outcome = train(run, workdir, extend=False, console=quiet_console())
    assert outcome.exit_code == 0
    return {row["step"]: row["loss"] for row in read_rows(workdir / "metrics.jsonl") if row["kind"] == "train"}


def cut_back(workdir, step):
    """Make the run one that was stopped after ``step``."""
    for saved_step in (workdir / "checkpoints").iterdir():
        if int(saved_step.name) > step:
            shutil.rmtree(saved_step)
    (workdir / "result.json").unlink()


@pytest.mark.slow
def test_a_run_moves_to_one_device(tmp_path):
    workdir = tmp_path / "run"
    straight = run_on(tmp_path, workdir, 8)
    assert sorted(straight) == list(range(1, 13))
    cut_back(workdir, 8)
    np.testing.assert_allclose(list(run_on(tmp_path, workdir, 1).values()), list(straight.values()), rtol=1e-5)
    assert json.loads((workdir / "config.json").read_text())["config"]["mesh"]["fsdp"] == 1


@pytest.mark.slow
def test_a_run_moves_from_eight_devices_to_four_to_one_and_back(tmp_path):
    workdir = tmp_path / "run"
    straight = run_on(tmp_path, workdir, 8)
    for step, fsdp in ((8, 4), (8, 1), (4, 8)):
        cut_back(workdir, step)
        found = run_on(tmp_path, workdir, fsdp)
        np.testing.assert_allclose(list(found.values()), list(straight.values()), rtol=1e-5)
