"""Gradient scores: those of the whole batch's dense gradient, without a dense model in memory."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology.blocks import gather_blocks
from sparsejax.topology.scores import by_share
from sparsejax.training.growth_scores import make_score_step, wants_scores
from sparsejax.training.loss import shift_right
from sparsejax.training.programs import init_state
from sparsejax.training.recipe import index_of, values_of
from tests.models.llama_test import dense_tree, plain_layer, plain_norm
from tests.training.tiny import tiny_recipe

TARGET = np.random.default_rng(0).integers(0, 256, (4, 16)).astype(np.int32)


def plain_gradients(recipe, state, target):
    """The dense gradient of the mean loss for every layer's matrices, by an independent plain model."""
    model = recipe.run.model

    def loss(dense):
        x = dense["embed"][shift_right(target, recipe.start_id)]
        for layer in dense["layers"]:
            x = plain_layer(x, layer, model)
        logits = plain_norm(x, dense["norm"], model.rms_eps) @ dense["head"]
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(target, 0)[..., None], axis=-1)[..., 0]
        return -jnp.sum(jnp.where(target >= 0, log_p, 0.0)) / jnp.sum(target >= 0)

    return jax.jit(jax.grad(loss))(dense_tree(state.params, state.topology, recipe.weights, model))["layers"]


@functools.cache
def scored(directory, microbatches):
    target = TARGET.copy()
    target[3, 5:] = -1
    recipe = tiny_recipe(
        directory, topology_drop="taylor", topology_grow="gradient", train_microbatches=microbatches, topology_shards=2
    )
    state = init_state(recipe)
    return recipe, state, target, jax.jit(make_score_step(recipe))(state, target)[1]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("scores")


def test_scores_are_block_sums_of_the_dense_gradient(directory):
    recipe, state, target, scores = scored(directory, 1)
    gradients = plain_gradients(recipe, state, target)
    for name, weight in recipe.sparse.items():
        grid = weight.grid
        for layer in range(recipe.run.model.layers):
            dense = gradients[layer][name]
            blocks = jnp.abs(dense).reshape(grid.rows, grid.block[0], grid.columns, grid.block[1]).sum(axis=(1, 3))
            np.testing.assert_allclose(scores.growth[name][layer], by_share(blocks, grid), rtol=2e-4, atol=1e-7)
            index = jax.tree.map(lambda array, layer=layer: array[layer], index_of(state.topology, name))
            active = gather_blocks(dense, index, grid) * values_of(state.params, name)[layer]
            np.testing.assert_allclose(
                scores.taylor[name][layer], jnp.square(active).sum(axis=(1, 2)), rtol=1e-3, atol=1e-12
            )


def test_scores_are_those_of_the_whole_batch_whatever_the_microbatches(directory):
    _, _, _, whole = scored(directory, 1)
    recipe, _, _, parts = scored(directory, 2)
    for name in recipe.sparse:
        np.testing.assert_allclose(parts.growth[name], whole.growth[name], rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(parts.taylor[name], whole.taylor[name], rtol=1e-3, atol=1e-13)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_the_score_program_holds_no_stack_of_dense_weights(tmp_path, microbatches):
    # At most one layer's matrices are dense at a time, in the program of the gradient too.
    wide = {"model_hidden": 64, "model_mlp": 192, "model_head_dim": 32, "model_layers": 3, "topology_block": (16, 16)}
    recipe = tiny_recipe(tmp_path, topology_grow="gradient", train_microbatches=microbatches, **wide)
    text = jax.jit(make_score_step(recipe)).lower(recipe.abstract, TARGET).compile().as_text()
    found = set(re.findall(r"\[[\d,]+\]", text))
    assert "[64,192]" in found, "the search must find one layer's"
    assert not {"[3,64,64]", "[3,64,192]", "[3,192,64]"} & found


# 48 and 144 are the sides of weights and of nothing else, so that a search for them finds dense matrices only.
WIDE = {"model_layers": 1, "model_hidden": 48, "model_mlp": 144, "model_head_dim": 24, "topology_block": (8, 8)}


@pytest.mark.slow
def test_sparse_products_score_every_place_without_a_dense_matrix(tmp_path):
    programs, scores = {}, {}
    for name in ("xla", "transient"):
        recipe = tiny_recipe(tmp_path, topology_grow="gradient", model_implementation=name, **WIDE)
        programs[name] = jax.jit(make_score_step(recipe)).lower(recipe.abstract, TARGET).compile()
        state = init_state(recipe)
        scores[name] = programs[name](state, TARGET)[1].growth
    dense = {"[48,48]", "[48,144]", "[144,48]"}
    found = {name: set(re.findall(r"f32(\[[\d,]+\])", program.as_text())) for name, program in programs.items()}
    assert dense & found["transient"], "the search must find what it looks for"
    assert not dense & found["xla"]
    for name, weight in recipe.sparse.items():
        np.testing.assert_allclose(scores["xla"][name], scores["transient"][name], rtol=1e-5, atol=1e-9)
        # The same decision: what is to be grown is the same set of places.
        count = weight.count // 4
        orders = [np.sort(np.argsort(-np.asarray(scores[kind][name]), axis=-1)[..., :count]) for kind in scores]
        np.testing.assert_array_equal(*orders)


@pytest.mark.slow
def test_memory_follows_the_rule(tmp_path):
    recipe = tiny_recipe(tmp_path, topology_grow="momentum", topology_score_decay=0.75)
    step, state = jax.jit(make_score_step(recipe)), init_state(recipe)
    first, fresh = step(state, TARGET)
    second, _ = step(first, TARGET)
    for name in recipe.sparse:
        assert state.scores[name].max() == 0
        np.testing.assert_allclose(second.scores[name], 1.75 * first.scores[name], rtol=1e-5)
        np.testing.assert_array_equal(fresh.growth[name], first.scores[name])


def test_when_scores_are_taken(tmp_path):
    # Rewirings after 3, 6 and 9 of 12 steps.
    def steps(**changes):
        recipe = tiny_recipe(tmp_path, **changes)
        return [step for step in range(1, 13) if wants_scores(recipe, step)]

    assert steps() == []
    assert steps(topology_grow="gradient", topology_score_steps=2) == [3, 6, 9]
    assert steps(topology_drop="taylor") == [3, 6, 9]
    assert steps(topology_grow="gradient_sum", topology_score_steps=2) == [2, 3, 5, 6, 8, 9]
    assert steps(topology_grow="momentum", topology_score_steps=3, topology_stop_fraction=0.5) == [1, 2, 3, 4, 5, 6]


def test_a_step_after_scoring_is_the_step_without(directory):
    # Scoring only reads: no weight moves by it.
    recipe, state, target, _ = scored(directory, 1)
    after, _ = jax.jit(make_score_step(recipe))(state, target)
    jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(after, scores=state.scores), state)
