"""The rewiring program of a whole model: exact counts by every rule, values and moments of regrown blocks, any mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sparsejax.config import CHOICES
from sparsejax.optim.sparse_adam import sparse_adam_state
from sparsejax.topology.blocks import BlockSparse, validate
from sparsejax.topology.growth import SCORED
from sparsejax.training.growth_scores import NO_SCORES, Scores
from sparsejax.training.programs import init_state
from sparsejax.training.recipe import index_of, values_of, values_path
from sparsejax.training.rewire_plan import plan_at
from sparsejax.training.rewire_statistics import active_in
from sparsejax.training.rewiring import make_fade_step, make_rewire_step
from sparsejax.training.steps import make_train_step
from tests.training.tiny import tiny_recipe

# Every rule once, on shares without balance and on balanced columns in turn; counts that move cannot be balanced.
RULES = [
    ("magnitude", "random", 2, "column"),
    ("taylor", "random", 1, "none"),
    ("threshold", "random", 2, "none"),
    ("inverse", "random", 1, "column"),
    ("sign", "random", 2, "none"),
    ("soft", "mix", 2, "column"),
    ("global_magnitude", "random", 2, "none"),
    ("magnitude", "gradient", 1, "none"),
    ("magnitude", "gradient_sum", 2, "column"),
    ("magnitude", "momentum", 1, "column"),
    ("magnitude", "momentum_neuron", 2, "none"),
]
# Compile time is the cost: one sparse kind says what seven would; two, one cut by columns and one by rows, where
# kinds meet.
ONE_KIND = {"topology_rules": ("attention.*=1", "mlp.(gate|up)=1")}
TWO_KINDS = {"topology_rules": ("attention.*=1", "mlp.gate=1")}


def scores_of(recipe, seed=0):
    """Made-up gradient scores, equal on every mesh."""
    draw = np.random.default_rng(seed)
    layers = recipe.run.model.layers
    growth = {
        name: draw.random((layers, weight.grid.shards, weight.grid.cells_per_share), np.float32)
        for name, weight in recipe.sparse.items()
    }
    if recipe.run.topology.grow == "gradient_sum":  # the first gradient and the sum
        growth = {
            name: np.stack([first, draw.random(first.shape, np.float32)], axis=2) for name, first in growth.items()
        }
    taylor = {name: draw.random((layers, weight.capacity), np.float32) for name, weight in recipe.sparse.items()}
    topology = recipe.run.topology
    return Scores(growth if topology.grow in SCORED else {}, taylor if topology.drop == "taylor" else {})


def trained_state(recipe, seed=0):
    """A state whose weights, moments and ages are all different, without training."""
    state = init_state(recipe)
    draw = np.random.default_rng(seed)
    params, opt_state = state.params, state.opt_state
    adam = sparse_adam_state(opt_state)
    noisy = jax.tree.map(lambda leaf: jnp.where(leaf == 0, 0, leaf + 0.01 * draw.normal(size=leaf.shape)), params)
    moments = jax.tree.map(lambda leaf: jnp.where(leaf == 0, 0, leaf**2), noisy)
    aged = adam._replace(count=jnp.int32(50), mu=noisy, nu=moments, ages=jax.tree.map(lambda age: age + 50, adam.ages))
    opt_state = jax.tree.map(lambda node: aged if node is adam else node, opt_state, is_leaf=lambda node: node is adam)
    return dataclasses.replace(state, params=noisy, opt_state=opt_state, step=jnp.int32(3))


def counts(recipe, state):
    """Active blocks of every kind, layer and share."""
    return {
        name: np.asarray(
            active_in(index_of(state.topology, name), weight.grid).reshape(
                recipe.run.model.layers, weight.grid.shards, -1
            )
        ).sum(axis=2)
        for name, weight in recipe.sparse.items()
    }


def test_every_rule_is_tried():
    assert {drop for drop, _, _, _ in RULES} | {"none"} == set(CHOICES["topology.drop"])
    assert {grow for _, grow, _, _ in RULES} | {"none"} == set(CHOICES["topology.grow"])


def test_counts_of_one_ranking_move_within_their_slots(tmp_path):
    recipe = tiny_recipe(tmp_path, topology_drop="global_magnitude", **TWO_KINDS)
    state = trained_state(recipe)
    after, _ = jax.jit(make_rewire_step(recipe))(state, plan_at(recipe, 3), NO_SCORES)
    before, found = counts(recipe, state), counts(recipe, after)
    assert any(not np.array_equal(before[name], found[name]) for name in found)
    for name, weight in recipe.sparse.items():
        assert (found[name] >= 1).all() and (found[name] <= weight.capacity // weight.grid.shards).all()


@pytest.mark.parametrize(("drop", "grow", "shards", "balance"), RULES)
def test_counts_are_exact_at_every_rate(tmp_path, drop, grow, shards, balance):
    changes = {"topology_drop": drop, "topology_grow": grow, "topology_drop_threshold": 0.02}
    changes |= {"topology_shards": shards, "topology_balance": balance}
    recipe = tiny_recipe(tmp_path, **changes, **(TWO_KINDS if drop == "global_magnitude" else ONE_KIND))
    rewire, scored, state = jax.jit(make_rewire_step(recipe)), scores_of(recipe), trained_state(recipe)
    for step in (3, 6, 9):
        before, plan = counts(recipe, state), plan_at(recipe, step)
        state, metrics = rewire(dataclasses.replace(state, step=jnp.int32(step)), plan, scored)
        after = counts(recipe, state)
        assert sum(map(np.sum, after.values())) == sum(map(np.sum, before.values()))
        for name in recipe.sparse if drop != "global_magnitude" else ():
            np.testing.assert_array_equal(after[name], before[name])
            churned = round(float(metrics[f"topology/churn/{name}"]) * after[name].mean() * shards)
            wanted = int(plan.drop[name]) * shards
            assert (wanted >= 1 or step > 3) and (churned <= wanted if drop == "threshold" else churned == wanted)
    assert rewire._cache_size() == 1
    for name, weight in recipe.sparse.items():
        for layer in range(recipe.run.model.layers):
            pick = functools.partial(jax.tree.map, lambda array, layer=layer: array[layer])
            validate(BlockSparse(*pick((values_of(state.params, name), index_of(state.topology, name))), weight.grid))


MESHES = [
    pytest.param("sign", "momentum_neuron", 4, id="sign-momentum_neuron-4", marks=pytest.mark.slow),
    *(
        pytest.param(drop, grow, devices, id=f"{drop}-{grow}-{devices}", marks=pytest.mark.slow)
        for drop, grow, _, _ in RULES
        for devices in (2, 4, 8)
    ),
]


@pytest.mark.parametrize(("drop", "grow", "devices"), MESHES)
def test_topology_is_bit_equal_on_any_number_of_devices(tmp_path, drop, grow, devices):
    changes = {"topology_drop": drop, "topology_grow": grow, "topology_shards": 8, "topology_block": (2, 2)}
    recipe = tiny_recipe(tmp_path, **changes, **ONE_KIND)
    rewire, scored, state, plan = make_rewire_step(recipe), scores_of(recipe), trained_state(recipe), plan_at(recipe, 3)
    alone, _ = jax.jit(rewire)(state, plan, scored)
    mesh = jax.make_mesh((devices,), ("tensor",), (AxisType.Auto,), devices=jax.devices()[:devices])

    def spread(leaf):
        cut = leaf.ndim >= 2 and leaf.shape[0] == recipe.run.model.layers and leaf.shape[1] % devices == 0
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(None, "tensor") if cut else PartitionSpec()))

    many, _ = jax.jit(rewire)(*jax.tree.map(spread, (state, plan, scored)))
    for part in ("topology", "params", "explored"):
        jax.tree.map(np.testing.assert_array_equal, getattr(alone, part), getattr(many, part))


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.slow
def test_losses_agree_on_any_number_of_devices(tmp_path, devices):
    recipe = tiny_recipe(tmp_path, train_batch_size=8, **ONE_KIND)
    target = np.random.default_rng(0).integers(0, 256, (2, 8, 16)).astype(np.int32)
    step = jax.jit(make_train_step(recipe))
    found = []
    for count in (1, devices):
        mesh = jax.make_mesh((count,), ("data",), (AxisType.Auto,), devices=jax.devices()[:count])
        state, losses = jax.device_put(init_state(recipe), NamedSharding(mesh, PartitionSpec())), []
        for batch in target:
            rows = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
            state, metrics = step(state, rows, recipe.rates)
            losses.append(float(metrics["loss"]))
        found.append(losses)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def regrown_of(recipe, before, after, name):
    """Slots after the rewiring whose ages were reset, and those that were not."""
    path = values_path(name)
    ages = np.asarray(sparse_adam_state(after.opt_state).ages[path])
    return ages == 0, ages > 0


@pytest.mark.parametrize("value", ["zero", "keep", "init"])
def test_regrown_blocks_start_as_told_with_fresh_moments(tmp_path, value):
    changes = {"topology_regrow_value": value, "topology_regrow_dropped": value == "keep", "topology_rate": 0.6}
    recipe = tiny_recipe(tmp_path, **changes, **ONE_KIND)
    before = trained_state(recipe)
    after, _ = jax.jit(make_rewire_step(recipe))(before, plan_at(recipe, 3), NO_SCORES)
    adam = sparse_adam_state(after.opt_state)
    came_back = 0
    for name in recipe.sparse:
        grown, kept = regrown_of(recipe, before, after, name)
        assert grown.any() and kept.any()
        values = np.asarray(values_of(after.params, name))
        for moments in (adam.mu, adam.nu):
            assert not np.asarray(values_of(moments, name))[grown].any()
            assert np.asarray(values_of(moments, name))[kept].all()
        old = {block.tobytes() for layer in np.asarray(values_of(before.params, name)) for block in layer}
        same = np.array([[block.tobytes() in old for block in layer] for layer in values])
        assert same[kept].all()
        came_back += int(same[grown].sum())
        if value == "zero":
            assert not values[grown].any()
        if value == "init":
            assert values[grown].all() and values[grown].std() == pytest.approx(0.02, rel=0.35)
    assert (came_back > 0) == (value == "keep")


def test_statistics_of_two_rewirings(tmp_path):
    recipe = tiny_recipe(tmp_path, topology_every=50, **ONE_KIND)
    rewire, state = jax.jit(make_rewire_step(recipe)), trained_state(recipe)
    state, first = rewire(state, plan_at(recipe, 0), NO_SCORES)
    assert all(np.isnan(first[f"topology/survival/{name}"]) for name in recipe.sparse)
    adam = sparse_adam_state(state.opt_state)
    # Fifty updates later, in which regrown blocks became large: all survive.
    older = adam._replace(count=adam.count + 50, ages=jax.tree.map(lambda age: age + 50, adam.ages))
    opt_state = jax.tree.map(lambda n: older if n is adam else n, state.opt_state, is_leaf=lambda n: n is adam)
    params = jax.tree.map(lambda leaf: jnp.where(leaf == 0, 9.0, leaf), state.params)
    large = dataclasses.replace(state, params=params, opt_state=opt_state, step=jnp.int32(53))
    _, second = rewire(large, plan_at(recipe, 3), NO_SCORES)
    # Those that stayed at 0 instead all go.
    small = dataclasses.replace(large, params=state.params)
    after, third = rewire(small, plan_at(recipe, 0), NO_SCORES)
    for name, weight in recipe.sparse.items():
        grown = int(plan_at(recipe, 0).drop[name])
        assert second[f"topology/survival/{name}"] == 1.0 and third[f"topology/survival/{name}"] == 0.0
        assert first[f"topology/initial_overlap/{name}"] == pytest.approx(1 - grown / weight.count)
        assert first[f"topology/explored/{name}"] == pytest.approx((weight.count + grown) / weight.grid.cells)
        assert first[f"topology/moved/{name}"] == pytest.approx(2 * grown / weight.grid.cells)
        bits = np.unpackbits(np.asarray(after.explored[name]), axis=1).sum()
        assert third[f"topology/explored/{name}"] == pytest.approx(bits / (2 * weight.grid.cells))


def test_fading_takes_the_next_drops_to_zero(tmp_path):
    recipe = tiny_recipe(tmp_path, topology_fade_steps=2, **ONE_KIND)
    fade, plan, state = jax.jit(make_fade_step(recipe)), plan_at(recipe, 3), trained_state(recipe)
    half = fade(state, plan, jnp.float32(0.5))
    gone = fade(half, plan, jnp.float32(0.0))
    after, _ = jax.jit(make_rewire_step(recipe))(gone, plan, NO_SCORES)
    straight, _ = jax.jit(make_rewire_step(recipe))(state, plan, NO_SCORES)
    for name in recipe.sparse:
        full, faded, zero = (np.asarray(values_of(s.params, name)) for s in (state, half, gone))
        chosen = (faded != full).any(axis=(-2, -1))
        assert (chosen.sum(axis=1) == int(plan.drop[name])).all()
        np.testing.assert_array_equal(faded[chosen], 0.5 * full[chosen])
        assert not zero[chosen].any() and np.array_equal(zero[~chosen], full[~chosen])
    # Nothing else moved in between, so the same blocks go.
    jax.tree.map(np.testing.assert_array_equal, after.topology, straight.topology)
