"""Runs whose weights are no blocks: N:M over dense master weights, Monarch factors, GaLore."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.accounting import memory
from sparsejax.optim.sparse_adam import sparse_adam_state
from sparsejax.topology.nm import nm_mask
from sparsejax.training.memory import measure
from sparsejax.training.programs import init_state
from sparsejax.training.recipe import dense_twin
from sparsejax.training.report import density_table
from sparsejax.training.steps import make_train_step
from tests.training.tiny import quiet_console, tiny_recipe

FIXED = {"topology_drop": "none", "topology_grow": "none", "optim_form": "naive", "optim_density_exponent": 0.0}
NM = FIXED | {"topology_method": "sr_ste", "topology_storage": "dense_master"}
MONARCH = FIXED | {"topology_method": "monarch", "topology_storage": "monarch"}
GALORE = FIXED | {"optim_form": "galore", "topology_method": "galore", "topology_density": 1.0, "optim_galore_rank": 3}


def program(function):
    """Compiled without optimising: compiling is all the cost of so small a program."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def batch(seed):
    return jax.random.randint(jax.random.key(seed), (4, 16), 0, 256)


def up(tree):
    return tree["layers"]["mlp"]["up"]


@pytest.mark.parametrize("changes", [NM, MONARCH, GALORE], ids=["nm", "monarch", "galore"])
def test_no_leaf_is_blocks_and_the_bytes_are_those_of_the_formula(tmp_path, changes):
    recipe = tiny_recipe(tmp_path, **changes)
    assert recipe.sparse == {} and not recipe.rewires
    assert sparse_adam_state(recipe.abstract.opt_state).ages == {}
    counted = [weight.counted for weight in recipe.weights.values()]
    rank = 3 if changes is GALORE else None
    expected, found = memory(recipe.shape, counted, galore_rank=rank), measure(recipe, recipe.abstract)
    assert found == (expected.maskable, expected.total)
    twin = dense_twin(recipe)
    theirs = measure(twin, twin.abstract)[0]
    assert (found[0] == theirs) == (changes is NM)
    assert found[0].total <= theirs.total and twin.shape == recipe.shape


def test_the_density_table_names_what_is_multiplied(tmp_path):
    def shown(changes):
        console = quiet_console()
        console.print(density_table(tiny_recipe(tmp_path, **changes)))
        return console.file.getvalue()

    assert "dense, 2:4" in shown(NM)
    assert "2 x 4 blocks, inner 4" in shown(MONARCH)
    assert "attention: xla" in shown(NM)


def test_one_step_of_sr_ste_by_hand(tmp_path):
    """b1 = b2 = 0 and eps = 1 make the direction g / (|g| + 1), so the gradient Adam saw can be read off the update."""
    adam = {"optim_b1": 0.0, "optim_b2": 0.0, "optim_eps": 1.0, "optim_clip": 0.01, "model_layers": 1}
    seen = {}
    for decay in (0.0, 0.5):
        recipe = tiny_recipe(tmp_path, **NM | adam | {"topology_ste_decay": decay})
        state = init_state(recipe)
        after, metrics = program(make_train_step(recipe))(state, batch(0), recipe.rates)
        assert metrics["grad_norm"] > 0.01  # clipped
        direction = (up(state.params)["kernel"] - up(after.params)["kernel"]) / recipe.rates[0]
        seen[decay] = direction / (1 - jnp.abs(direction))
    kernel = up(state.params)["kernel"]
    # Neither the 64 tokens nor the clipping to a small norm scale the pull.
    pull = jnp.where(nm_mask(kernel, 2, 4), 0.0, 0.5 * kernel)
    assert jnp.abs(pull).max() > 1e-3
    np.testing.assert_allclose(seen[0.5] - seen[0.0], pull, rtol=0.02, atol=2e-4)


def test_the_density_scales_the_rate_of_master_weights_and_factors_if_asked(tmp_path):
    for changes, leaf, density in ((NM, "kernel", 0.5), (MONARCH, "first", 0.5625)):
        moved = []
        for exponent in (0.0, 1.0):
            recipe = tiny_recipe(tmp_path, **changes | {"optim_density_exponent": exponent, "topology_ste_decay": 0.0})
            ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), recipe.abstract.params)
            moved.append(program(recipe.optimizer.update)(ones, recipe.optimizer.init(ones), ones)[0])
        assert recipe.weights["mlp.up"].density == density
        np.testing.assert_allclose(up(moved[1])[leaf], up(moved[0])[leaf] / density, rtol=1e-6)
        np.testing.assert_array_equal(moved[1]["head"]["kernel"], moved[0]["head"]["kernel"])


def test_a_flow_advances_with_the_steps_and_ends_at_n_of_m(tmp_path):
    flow = {"topology_flow": "mask_linear", "topology_flow_start": 0.25, "topology_flow_end": 0.75}
    recipe = tiny_recipe(tmp_path, **NM, **flow, model_layers=1)
    step, state, seen = program(make_train_step(recipe)), init_state(recipe), []
    for number in range(recipe.steps):
        seen.append(round(float(up(state.topology)["faded"][0]), 3))
        state, metrics = step(state, batch(number), recipe.rates)
        assert np.isfinite(metrics["loss"])
    assert seen == [1.0, 1.0, 1.0, 1.0, 0.833, 0.667, 0.5, 0.333, 0.167, 0.0, 0.0, 0.0]
    assert step._cache_size() == 1
    np.testing.assert_array_equal(up(state.topology)["faded"], [0.0])


def test_a_flow_begins_where_the_first_step_finds_it(tmp_path):
    flow = {"topology_flow": "structure", "topology_flow_start": 0.0}
    recipe = tiny_recipe(tmp_path, **NM, **flow, model_layers=1)
    np.testing.assert_array_equal(up(init_state(recipe).topology)["used"], [3])


@pytest.mark.parametrize("changes", [NM, MONARCH, GALORE], ids=["nm", "monarch", "galore"])
def test_the_loss_falls(tmp_path, changes):
    recipe = tiny_recipe(tmp_path, **changes | {"optim_galore_every": 4, "model_layers": 1})
    step, state, losses = program(make_train_step(recipe)), init_state(recipe), []
    for _ in range(recipe.steps):
        state, metrics = step(state, batch(0), recipe.rates)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.2
