"""The train step against plain dense training, and what it must never do."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.hardware.target import Target
from sparsejax.topology.blocks import BlockSparse, validate
from sparsejax.training.growth_scores import NO_SCORES
from sparsejax.training.loss import shift_right
from sparsejax.training.programs import init_state
from sparsejax.training.recipe import build_recipe, index_of, values_of
from sparsejax.training.rewire_plan import plan_at
from sparsejax.training.rewiring import make_rewire_step
from sparsejax.training.steps import make_train_step
from tests.models.llama_test import dense_tree, plain_layer, plain_norm
from tests.training.tiny import tiny_recipe, tiny_run


def batches(count, rows=4, length=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, rows, length)).astype(np.int32)


def train_program(recipe):
    """The compiled train step with the run's own learning rates."""
    compiled, rates = jax.jit(make_train_step(recipe)), recipe.rates
    return lambda state, target: compiled(state, target, rates)


def plan(recipe, count):
    """A plan that replaces ``count`` blocks in every share."""
    counts = {name: np.int32(count) for name in recipe.sparse}
    return dataclasses.replace(plan_at(recipe, 3), drop=counts, grow=counts)


@functools.cache
def sparse_programs(directory):
    recipe = tiny_recipe(directory)
    return recipe, init_state(recipe), train_program(recipe), jax.jit(make_rewire_step(recipe))


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    return sparse_programs(tmp_path_factory.mktemp("sparse"))


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_twenty_dense_steps_equal_plain_optax_on_a_plain_model(tmp_path):
    recipe = tiny_recipe(tmp_path, topology_density=1.0, topology_drop="none", topology_grow="none", train_steps=20)
    state, step = init_state(recipe), train_program(recipe)
    config, model = recipe.run.optim, recipe.run.model

    def plain_loss(dense, target):
        x = dense["embed"][shift_right(target, recipe.start_id)]
        for layer in dense["layers"]:
            x = plain_layer(x, layer, model)
        logits = plain_norm(x, dense["norm"], model.rms_eps) @ dense["head"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()

    rate = optax.warmup_cosine_decay_schedule(0.0, config.lr, 2, 20, config.lr * config.min_ratio)
    plain = optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(lambda t: rate(t + 1), config.b1, config.b2))
    dense = dense_tree(state.params, state.topology, recipe.weights, model)
    plain_state = plain.init(dense)

    @jax.jit
    def plain_step(dense, plain_state, target):
        loss, grads = jax.value_and_grad(plain_loss)(dense, target)
        updates, plain_state = plain.update(grads, plain_state)
        return optax.apply_updates(dense, updates), plain_state, loss

    for target in batches(20):
        state, metrics = step(state, target)
        dense, plain_state, loss = plain_step(dense, plain_state, target)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)
    assert int(state.step) == 20 and int(state.skipped) == 0


def test_microbatches_change_nothing(sparse, tmp_path):
    _, state, step, _ = sparse
    split = tiny_recipe(tmp_path, train_microbatches=2)
    target = batches(1)[0].copy()
    target[3, 5:] = -1  # unequal numbers of counted tokens in the two halves
    whole, metrics = step(state, target)
    halves, split_metrics = train_program(split)(state, target)
    np.testing.assert_allclose(metrics["loss"], split_metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], split_metrics["grad_norm"], rtol=1e-5)
    assert metrics["tokens"] == split_metrics["tokens"] == 64 - 11
    moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), whole.params, halves.params)
    # Adam's first step is lr * sign(g); only a gradient near eps could differ visibly.
    assert max(jax.tree.leaves(moved)) < 2e-4


def test_padding_rows_do_not_count(sparse):
    _, state, step, _ = sparse
    target = batches(1)[0]
    padded = target.copy()
    padded[2:] = -1
    other = target.copy()
    other[2:] = -1
    other[2:, 0] = -1
    assert step(state, padded)[1]["tokens"] == 32
    assert equal(step(state, padded)[0], step(state, other)[0])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_non_finite_step_changes_no_state_and_is_counted(sparse, poison):
    _, state, step, _ = sparse
    state, _ = step(state, batches(1)[0])
    embedding = state.params["embed"]["embedding"].at[7, 0].set(poison)
    broken = state.__class__(**{**vars(state), "params": state.params | {"embed": {"embedding": embedding}}})
    target = np.full((4, 16), 7, np.int32)
    once, metrics = step(broken, target)
    twice, _ = step(once, target)
    assert not np.isfinite(metrics["loss"])
    assert [int(s.skipped) for s in (once, twice)] == [1, 2]
    assert [int(s.skipped_in_row) for s in (once, twice)] == [1, 2]
    assert [int(s.step) for s in (once, twice)] == [2, 3]
    for part in ("topology", "opt_state"):
        assert equal(getattr(twice, part), getattr(state, part))
    untouched = twice.params | {"embed": state.params["embed"]}
    assert equal(untouched, state.params)
    healed = twice.__class__(**{**vars(twice), "params": state.params})
    after, _ = step(healed, batches(1)[0])
    assert int(after.skipped_in_row) == 0 and int(after.skipped) == 2


def test_rewiring_keeps_counts_values_and_validity(sparse):
    recipe, state, step, rewire = sparse
    for target in batches(2):
        state, _ = step(state, target)
    after, metrics = rewire(state, plan(recipe, 2), NO_SCORES)
    assert int(after.step) == int(state.step)
    for name, weight in recipe.sparse.items():
        assert metrics[f"topology/churn/{name}"] == pytest.approx(2 / weight.count)
        for layer in range(recipe.run.model.layers):
            old, new = (
                BlockSparse(
                    values_of(s.params, name)[layer],
                    jax.tree.map(lambda array, layer=layer: array[layer], index_of(s.topology, name)),
                    weight.grid,
                )
                for s in (state, after)
            )
            validate(new)
            before = {(int(r), int(c)): v for r, c, v in zip(old.rows, old.cols, old.values, strict=True)}
            grown = 0
            for r, c, value in zip(new.rows, new.cols, new.values, strict=True):
                place = (int(r), int(c))
                if place in before:
                    assert np.array_equal(value, before[place])
                else:
                    grown += 1
                    assert not np.any(value)
            assert grown == 2
    dense_parts = ("embed", "norm", "head")
    assert all(equal(after.params[part], state.params[part]) for part in dense_parts)


def test_regrown_blocks_train_again_after_a_rewiring(sparse):
    recipe, state, step, rewire = sparse
    state, _ = step(state, batches(1)[0])
    after, _ = rewire(state, plan(recipe, 1), NO_SCORES)
    trained, metrics = step(after, batches(1, seed=5)[0])
    assert np.isfinite(metrics["loss"])
    for name in recipe.sparse:
        fresh = ~np.any(np.asarray(values_of(after.params, name)), axis=(-2, -1))
        moved = np.any(np.asarray(values_of(trained.params, name)), axis=(-2, -1))
        assert fresh.sum() == recipe.run.model.layers
        assert moved[fresh].any()  # a block behind a dead row stays at 0


def test_rewiring_compiles_nothing_new(sparse):
    recipe, state, _, _ = sparse
    step, rewire = jax.jit(make_train_step(recipe)), jax.jit(make_rewire_step(recipe))
    for count, target in enumerate(batches(3), start=1):
        state, _ = step(state, target, recipe.rates)
        state, _ = rewire(state, plan(recipe, count), NO_SCORES)
    assert step._cache_size() == 1 and rewire._cache_size() == 1


@pytest.mark.parametrize(("attention", "fused"), [("auto", True), ("xla", False)])
def test_the_train_step_for_a_tpu_has_fused_attention_and_no_scores(tmp_path, attention, fused):
    """Under scan, remat and grad; lowered only, without a TPU. Scores are all that has 384 tokens twice."""
    changes = {"model_attention": attention, "model_remat": "full", "data_sequence_length": 384, "train_batch_size": 2}
    run = tiny_run(tmp_path, **changes)
    recipe = build_recipe(run, steps=12, vocab_size=257, start_id=256, target=Target("tpu", "v5e"))
    target = jax.ShapeDtypeStruct((2, 384), jnp.int32)
    traced = jax.jit(make_train_step(recipe)).trace(recipe.abstract, target, recipe.rates)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    kernels = {name for name in ("splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv") if name in text}
    assert (len(kernels) == 3) == ("tpu_custom_call" in text) == fused
    assert ("384x384x" in text) != fused
