"""The first update of regrown blocks over that of the others, on a constant gradient late in a run."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from sparsejax.optim.sparse_adam import sparse_adam_state
from sparsejax.training.growth_scores import NO_SCORES
from sparsejax.training.programs import init_state
from sparsejax.training.rewire_plan import plan_at
from sparsejax.training.rewire_statistics import regrown_update
from sparsejax.training.rewiring import make_rewire_step
from tests.training.tiny import tiny_recipe


def ratios(directory, form, updates):
    """The ratio of the first updates after a rewiring, with every gradient 1 since ever."""
    changes = {"optim_form": form, "optim_clip": 0.0, "optim_ramp": 4, "topology_every": 3}
    recipe = tiny_recipe(directory, **changes, topology_rules=("attention.*=1", "mlp.(gate|up)=1"))
    state = init_state(recipe)
    adam = sparse_adam_state(state.opt_state)
    ones = jax.tree.map(jnp.ones_like, state.params)
    late = adam._replace(
        count=jnp.int32(20_000), mu=ones, nu=ones, ages={name: age + 20_000 for name, age in adam.ages.items()}
    )
    opt_state = jax.tree.map(lambda node: late if node is adam else node, state.opt_state, is_leaf=lambda n: n is adam)
    state = dataclasses.replace(state, opt_state=opt_state, step=jnp.int32(3))
    assert regrown_update(recipe, ones, state.topology, opt_state) == 0
    state, _ = jax.jit(make_rewire_step(recipe))(state, plan_at(recipe, 3), NO_SCORES)

    @jax.jit
    def update(opt_state):
        directions, opt_state = recipe.optimizer.update(ones, opt_state, state.params)
        return opt_state, regrown_update(recipe, directions, state.topology, opt_state)

    found, opt_state = [], state.opt_state
    for _ in range(updates):
        opt_state, ratio = update(opt_state)
        found.append(float(ratio))
    return found


def test_plain_adam_starts_regrown_blocks_3_16_times_too_fast(tmp_path):
    assert ratios(tmp_path, "naive", 1) == pytest.approx([0.1 / 0.001**0.5], rel=1e-3)


def test_smet_ramps_them_up_and_only_their_first_update_counts(tmp_path):
    assert ratios(tmp_path, "smet", 2) == pytest.approx([0.25, 0.0], rel=1e-3)
