"""Runs whose weights are no blocks: N:M over dense master weights, Monarch factors, GaLore."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.accounting import memory
from sparsejax.optim.sparse_adam import sparse_adam_state
from sparsejax.topology.nm import nm_mask
from sparsejax.training.memory import dense_twin, measure
from sparsejax.training.recipe import init_state
from sparsejax.training.report import density_table
from sparsejax.training.steps import make_train_step
from tests.training.tiny import quiet_console, tiny_recipe

FIXED = {"topology_drop": "none", "topology_grow": "none", "optim_form": "naive", "optim_density_exponent": 0.0}
NM = FIXED | {"topology_method": "sr_ste", "topology_storage": "dense_master"}
MONARCH = FIXED | {"topology_method": "monarch", "topology_storage": "monarch"}
GALORE = FIXED | {"optim_form": "galore", "topology_method": "galore", "topology_density": 1.0, "optim_galore_rank": 3}


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
    twin = dense_twin(recipe, "cpu")
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


def test_one_step_of_sr_ste_by_hand(tmp_path):
    """b1 = b2 = 0 and eps = 1 make the direction g / (|g| + 1), so the gradient Adam saw can be read off the update."""
    adam = {"optim_b1": 0.0, "optim_b2": 0.0, "optim_eps": 1.0, "optim_clip": 0.01, "topology_ste_decay": 0.5}
    directions = {}
    for decay in (0.0, 0.5):
        recipe = tiny_recipe(tmp_path, **NM | adam | {"topology_ste_decay": decay, "optim_schedule": "constant"})
        state = init_state(recipe)
        after, metrics = jax.jit(make_train_step(recipe))(state, batch(0), recipe.rates)
        assert metrics["grad_norm"] > 0.01  # clipped
        direction = (up(state.params)["kernel"] - up(after.params)["kernel"]) / recipe.rates[0]
        directions[decay] = direction / (1 - jnp.abs(direction))
    kernel = up(state.params)["kernel"]
    pull = jnp.where(nm_mask(kernel, 2, 4), 0.0, 0.5 * kernel)
    assert jnp.abs(pull).max() > 1e-3
    np.testing.assert_allclose(directions[0.5] - directions[0.0], pull, rtol=0.02, atol=2e-4)
    assert jnp.all(jnp.any(directions[0.0] != 0.0, axis=1))


def test_the_density_scales_the_rate_of_master_weights_and_factors_if_asked(tmp_path):
    for changes, leaf, density in ((NM, "kernel", 0.5), (MONARCH, "first", None)):
        moved = []
        for exponent in (0.0, 1.0):
            recipe = tiny_recipe(tmp_path, **changes | {"optim_density_exponent": exponent, "topology_ste_decay": 0.0})
            state = init_state(recipe)
            gradient = jax.tree.map(jnp.ones_like, state.params)
            moved.append(recipe.optimizer.update(gradient, state.opt_state, state.params)[0])
        scale = 1 / (density or recipe.weights["mlp.up"].density)
        np.testing.assert_allclose(up(moved[1])[leaf], scale * up(moved[0])[leaf], rtol=1e-6)
        np.testing.assert_array_equal(moved[1]["head"]["kernel"], moved[0]["head"]["kernel"])


@pytest.mark.parametrize("flow", ["mask_linear", "structure"])
def test_a_flow_advances_with_the_steps_and_ends_at_n_of_m(tmp_path, flow):
    recipe = tiny_recipe(tmp_path, **NM, topology_flow=flow, topology_flow_start=0.25, topology_flow_end=0.75)
    assert recipe.steps == 12
    step, state, seen = jax.jit(make_train_step(recipe)), init_state(recipe), []
    for number in range(12):
        seen.append((int(up(state.topology)["used"][0]), round(float(up(state.topology)["faded"][1]), 3)))
        state, metrics = step(state, batch(number), recipe.rates)
        assert np.isfinite(metrics["loss"])
    fades = [1.0, 1.0, 1.0, 1.0, 0.833, 0.667, 0.5, 0.333, 0.167, 0.0, 0.0, 0.0]
    stages = [4] * 3 + [3] * 6 + [2] * 3
    assert seen == ([(2, fade) for fade in fades] if flow == "mask_linear" else [(used, 0.0) for used in stages])
    assert step._cache_size() == 1
    np.testing.assert_array_equal(up(state.topology)["used"], [2, 2])


@pytest.mark.parametrize("changes", [NM, MONARCH, GALORE], ids=["nm", "monarch", "galore"])
def test_the_loss_falls(tmp_path, changes):
    recipe = tiny_recipe(tmp_path, **changes | {"optim_galore_every": 4})
    step, state, losses = jax.jit(make_train_step(recipe), donate_argnums=0), init_state(recipe), []
    for _ in range(12):
        state, metrics = step(state, batch(0), recipe.rates)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.2
