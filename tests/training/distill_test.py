"""The loss of a run that learns from its dense start."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models import functional
from sparsejax.training import programs
from sparsejax.training.distill import (
    DistillSums,
    abstract_teacher,
    both_hidden_states,
    divergence,
    make_distilled_objective,
    teacher_flops,
)
from sparsejax.training.loss import shift_right
from sparsejax.training.recipe import dense_twin
from sparsejax.training.steps import make_gradient
from tests.training.meshes import batch, mesh_recipe
from tests.training.tiny import tiny_recipe

DISTILLED = {"init_from": "dense", "init_distill_weight": 0.75, "init_distill_temperature": 2.0}


def test_divergence_worked_example():
    # p = (1/2, 1/2), q = (1/4, 3/4): 1/2 ln 2 + 1/2 ln(2/3).
    teacher, student = jnp.zeros((1, 1, 2)), jnp.log(jnp.array([[[0.25, 0.75]]]))
    np.testing.assert_allclose(divergence(teacher, student, 1.0), 0.5 * math.log(4 / 3), rtol=1e-6)
    # At temperature 1/2 logits are doubled: q = (1, 9) / 10.
    expected = 0.5 * math.log(5) + 0.5 * math.log(5 / 9)
    np.testing.assert_allclose(divergence(teacher, student, 0.5), expected, rtol=1e-6)
    assert divergence(student, student, 3.0).item() == 0.0
    # A teacher that is certain, and a student that was certain of something else.
    extreme = divergence(jnp.array([[[1e4, 0.0]]]), jnp.array([[[0.0, 1e4]]]), 1.0)
    assert extreme.item() == 1e4


@pytest.fixture(scope="module")
def dense_params(tmp_path_factory):
    recipe, random = tiny_recipe(tmp_path_factory.mktemp("twin")), np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.2 * random.standard_normal(leaf.shape) + 0.1, jnp.float32),
        dense_twin(recipe).abstract.params,
    )


def of_dense(directory, **changes):
    """A dense student, so that it may be its teacher."""
    changes |= {"topology_density": 1.0, "topology_drop": "none", "topology_grow": "none", "topology_method": "dense"}
    return tiny_recipe(directory, **(DISTILLED | changes))


def test_the_objective_by_hand(tmp_path, dense_params):
    recipe = of_dense(tmp_path, init_feature_weight=3.0, train_z_loss=0.1)
    model = functional.merge(recipe.graphdef, dense_params, {})
    teacher_params = jax.tree.map(lambda leaf: 1.5 * leaf, dense_params)
    teacher = functional.merge(dense_twin(recipe).graphdef, teacher_params, {})
    target_BT = jnp.asarray(batch(0, rows=4))
    value, sums = jax.jit(make_distilled_objective(recipe))(dense_params, {}, target_BT, teacher_params)
    tokens_BT, counted = shift_right(target_BT, recipe.start_id), np.asarray(target_BT) != -1
    mine, theirs = (np.asarray(each(tokens_BT), np.float64)[counted] for each in (model, teacher))
    log_q, log_p = (x / 2 - np.log(np.exp(x / 2).sum(-1, keepdims=True)) for x in (mine, theirs))
    log_z = np.log(np.exp(mine).sum(-1))
    text = log_z - np.take_along_axis(mine, np.asarray(target_BT)[counted][:, None], -1)[:, 0]
    divergences = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    np.testing.assert_allclose(sums.nll, text.sum(), rtol=1e-5)
    np.testing.assert_allclose(sums.divergence, divergences.sum(), rtol=1e-4)
    expected = 0.25 * text.sum() + 0.75 * 4 * divergences.sum() + 3 * float(sums.feature_error) + 0.1 * (log_z**2).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert sums.tokens == counted.sum()


def test_layers_are_compared_token_by_token(tmp_path, dense_params):
    recipe = of_dense(tmp_path)
    student = functional.merge(recipe.graphdef, dense_params, {})
    teacher = functional.merge(recipe.graphdef, jax.tree.map(lambda leaf: 1.5 * leaf, dense_params), {})
    tokens_BT = jnp.asarray(batch(0, rows=2, length=4)[:, :4] % 257)
    counted_BT = jnp.array([[True, True, False, True], [False, True, True, True]])
    both = jax.jit(lambda: both_hidden_states(student, teacher, tokens_BT, counted_BT, True))()
    np.testing.assert_allclose(both[0], student.hidden_states(tokens_BT), rtol=1e-6)
    np.testing.assert_allclose(both[1], teacher.hidden_states(tokens_BT), rtol=1e-6)
    # Without any layer but the first the output before the last norm is the residual stream behind it.
    total = 0.0
    for depth in (1, 2):
        streams = []
        for params in (dense_params, jax.tree.map(lambda leaf: 1.5 * leaf, dense_params)):
            cut = params | {"layers": jax.tree.map(lambda leaf, depth=depth: leaf[:depth], params["layers"])}
            model = functional.merge(recipe.graphdef, cut, {})
            model.norm = lambda x: x
            streams.append(np.asarray(model.hidden_states(tokens_BT), np.float64))
        mine, theirs = streams
        quotient = ((mine - theirs) ** 2).sum(-1) / (theirs**2).sum(-1)
        total += quotient[np.asarray(counted_BT)].sum()
    np.testing.assert_allclose(both[2], total, rtol=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(tmp_path, dense_params):
    recipe = of_dense(tmp_path, init_distill_weight=1.0, init_feature_weight=1.0)
    gradient, sums = jax.jit(make_gradient(recipe))(dense_params, {}, jnp.asarray(batch(0, rows=4)), dense_params)
    assert isinstance(sums, DistillSums)
    # Compiled side by side, the two may round differently: nothing is a millionth of a nat a token.
    assert abs(sums.divergence) < 1e-6 * sums.tokens and sums.feature_error < 1e-6 * sums.tokens and sums.nll > 0
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-6


@pytest.mark.slow
def test_microbatches_and_chunks_change_nothing(tmp_path, dense_params):
    whole = of_dense(tmp_path, init_feature_weight=0.5)
    parts = of_dense(tmp_path, init_feature_weight=0.5, train_microbatches=2, train_loss_chunk=8, model_remat="full")
    teacher = jax.tree.map(lambda leaf: 1.5 * leaf, dense_params)
    target_BT = jnp.asarray(batch(0, rows=4))
    found = [jax.jit(make_gradient(each))(dense_params, {}, target_BT, teacher) for each in (whole, parts)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), *found)


def test_a_teacher_is_stored_as_it_is_multiplied_and_counted(tmp_path):
    recipe = tiny_recipe(tmp_path, **DISTILLED, model_compute_dtype="bfloat16")
    stored = abstract_teacher(recipe)
    assert stored["layers"]["attention"]["q"]["kernel"].dtype == jnp.bfloat16
    assert stored["embed"]["embedding"].dtype == jnp.bfloat16
    assert stored["norm"]["scale"].dtype == stored["layers"]["mlp_norm"]["scale"].dtype == jnp.float32
    # Per layer 2 (4 * 16 * 16 + 3 * 16 * 32) and attention 4 * 16 * 16, two layers; and the head 2 * 16 * 257.
    assert teacher_flops(recipe) == 2 * (2 * (4 * 256 + 3 * 512) + 1024) + 2 * 16 * 257
    assert teacher_flops(tiny_recipe(tmp_path)) == 0
    with pytest.raises(TypeError):
        programs.train_step(recipe).lower(recipe.abstract, jax.ShapeDtypeStruct((4, 16), jnp.int32), recipe.rates)


@pytest.mark.slow
@pytest.mark.parametrize("sequence", [False, True])
def test_a_mesh_changes_nothing(tmp_path, sequence):
    losses = []
    for shape in ((1, 1, 1), (2, 2, 2)):
        recipe = mesh_recipe(tmp_path, shape, sequence=sequence and shape[2] > 1, **DISTILLED, init_feature_weight=0.5)
        dense = dense_twin(dataclasses.replace(recipe, mesh=None) if recipe.mesh is None else recipe)
        teacher = jax.tree.map(lambda leaf: 1.5 * leaf, programs.init_state(dense).params)
        state, step = programs.init_state(recipe), programs.train_step(recipe)
        losses.append([])
        for number in range(4):
            state, metrics = step(state, batch(number), recipe.rates, teacher)
            losses[-1].append([float(metrics[name]) for name in ("loss", "divergence", "feature_error", "grad_norm")])
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-4)
