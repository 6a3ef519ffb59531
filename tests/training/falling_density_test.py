"""A density that falls: exact counts at every rewiring, slots cut down the stairs, resumed bit for bit."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.optim.sparse_adam import sparse_adam_state
from sparsejax.topology.blocks import BlockSparse, to_dense, validate
from sparsejax.topology.density_path import STAIRS
from sparsejax.training.checkpoint import state_digest
from sparsejax.training.growth_scores import NO_SCORES
from sparsejax.training.loop import train
from sparsejax.training.metrics import read_rows
from sparsejax.training.programs import init_state
from sparsejax.training.recipe import dense_twin, index_of, values_of, values_path
from sparsejax.training.resize import resize, slots_of
from sparsejax.training.rewire_plan import is_due, plan_at
from sparsejax.training.rewiring import make_rewire_step
from sparsejax.training.spent import whole_run
from sparsejax.training.steps import moving_densities
from tests.training.tiny import quiet_console, tiny_recipe, tiny_run

# Two stairs at most in twelve steps: rewirings after 3, 6 and 9.
GMP = {
    "topology_density_schedule": "linear",
    "topology_grow": "none",
    "topology_density": 0.25,
    "topology_density_start": 1.0,
    "topology_rules": ("attention.*=1", "mlp.gate=1"),
}


def dense_layers(recipe, params, topology, name):
    """``[L, K, N]`` of one kind."""
    grid = recipe.weights[name].grid
    one = lambda values, index: to_dense(BlockSparse(values, index, grid))  # noqa: E731
    return np.asarray(jax.vmap(one)(values_of(params, name), index_of(topology, name)))


@pytest.mark.slow
def test_counts_fall_exactly_and_only_the_smallest_go(tmp_path):
    recipe = tiny_recipe(tmp_path, **GMP)
    state = init_state(recipe)
    for step, density in ((3, 0.75), (6, 0.5), (9, 0.25)):
        assert is_due(recipe, step)
        before = state
        state = dataclasses.replace(state, step=jnp.int32(step))
        state, metrics = jax.jit(make_rewire_step(recipe))(state, plan_at(recipe, step), NO_SCORES)
        later = recipe.at_stage(step)
        cut = resize(state, recipe.sparse, later.sparse)
        for name, weight in later.sparse.items():
            assert metrics[f"topology/density/{name}"] == density == weight.count / weight.grid.cells
            assert values_of(cut.params, name).shape[1] == weight.capacity <= recipe.sparse[name].capacity
            old, new = (dense_layers(recipe, s.params, s.topology, name) for s in (before, state))
            np.testing.assert_array_equal(dense_layers(later, cut.params, cut.topology, name), new)
            gone = (old != 0) & (new == 0)
            np.testing.assert_array_equal(np.where(gone, 0, old), new)
            for layer in range(2):
                pick = jax.tree.map(
                    lambda array, layer=layer: array[layer], (values_of(cut.params, name), index_of(cut.topology, name))
                )
                validate(BlockSparse(*pick, weight.grid))
            ages = sparse_adam_state(cut.opt_state).ages[values_path(name)]
            assert ages.shape == (2, weight.capacity)
        recipe, state = later, cut
    assert {name: weight.capacity for name, weight in recipe.sparse.items()} == {
        name: weight.count for name, weight in recipe.sparse.items()
    }


def test_the_twin_of_a_falling_density_is_dense(tmp_path):
    twin = dense_twin(tiny_recipe(tmp_path, **GMP))
    assert twin.sparse == {} and not twin.rewires and twin.abstract.topology == {}


def test_slots_that_were_added_hold_nothing_and_can_be_cut_again(tmp_path):
    recipe = tiny_recipe(tmp_path, **GMP)
    small = recipe.at_stage(9)
    state = init_state(small)
    wider = resize(state, small.sparse, recipe.sparse)
    for name, weight in recipe.sparse.items():
        values, index = values_of(wider.params, name), index_of(wider.topology, name)
        for layer in range(2):
            validate(BlockSparse(*jax.tree.map(lambda array, layer=layer: array[layer], (values, index)), weight.grid))
    back = resize(wider, recipe.sparse, small.sparse)
    assert jax.tree.all(jax.tree.map(np.array_equal, back, state))


def test_blocks_need_their_slots(tmp_path):
    recipe = tiny_recipe(tmp_path, **GMP)
    few = {name: dataclasses.replace(weight, capacity=weight.count - 2) for name, weight in recipe.sparse.items()}
    with pytest.raises(ValueError, match=r"blocks do not fit in \d+ slots"):
        resize(init_state(recipe), recipe.sparse, few)


def test_means_over_the_run(tmp_path):
    recipe = tiny_recipe(tmp_path, **GMP)
    spent, full = (
        whole_run(recipe),
        whole_run(tiny_recipe(tmp_path, topology_density=1.0, topology_drop="none", topology_grow="none")),
    )
    # Three steps each at density 1, 0.75, 0.5 and 0.25 of up and down: 2 layers of 2 * 16 * 32 weights.
    assert spent.active_parameters == full.active_parameters - 2 * 2 * 16 * 32 * (1 - 0.625)
    assert spent.theoretical == full.theoretical - 6 * 2 * 2 * 16 * 32 * (1 - 0.625)
    assert STAIRS == 8


def test_a_continued_run_has_the_programs_of_one_that_never_stopped(tmp_path):
    recipe = tiny_recipe(tmp_path, **GMP, topology_every=1, topology_block=(8, 8))
    running, shared = recipe, 0
    for step in range(1, 12):
        later = running.at_stage(step)
        shared += later.stage != running.stage and slots_of(later.sparse) == slots_of(running.sparse)
        running = running if slots_of(later.sparse) == slots_of(running.sparse) else later
        assert recipe.in_use_after(step).stage == running.stage
    assert shared > 2  # rewirings between two cuts, where a recipe of the step would be another one


def test_rates_follow_the_density_of_the_step(tmp_path):
    recipe = tiny_recipe(tmp_path, **GMP)
    state = init_state(recipe.at_stage(6))
    assert {path: float(density) for path, density in moving_densities(recipe, state).items()} == {
        values_path(name): 0.5 for name in recipe.sparse
    }
    assert moving_densities(tiny_recipe(tmp_path), state) == {}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    directory = tmp_path_factory.mktemp("straight")
    outcome = train(
        tiny_run(directory, **GMP, train_keep_last=3), directory / "run", extend=False, console=quiet_console()
    )
    assert outcome.exit_code == 0
    return directory, outcome


@pytest.mark.slow
def test_a_run_continues_across_a_stair_bit_for_bit(straight):
    directory, outcome = straight
    again = directory / "again"
    shutil.copytree(directory / "run", again)
    for step in (8, 12):
        shutil.rmtree(again / "checkpoints" / str(step))
    (again / "result.json").unlink()
    resumed = train(tiny_run(directory, **GMP, train_keep_last=3), again, extend=False, console=quiet_console())
    assert int(state_digest(resumed.state)) == int(state_digest(outcome.state))
    losses = [
        [row["loss"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]
        for run in (again, directory / "run")
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_the_log_has_what_a_rewiring_did(straight):
    directory, _ = straight
    rows = [row for row in read_rows(directory / "run" / "metrics.jsonl") if row["kind"] == "rewire"]
    assert [row["step"] for row in rows] == [3, 6, 9]
    for row in rows:
        assert row["topology/loss_after"] != row["topology/loss_before"]
        assert {"topology/moved/mlp.up", "topology/explored/mlp.up", "topology/initial_overlap/mlp.up"} <= set(row)
