"""The programs of a run on a TPU that is not here: which kernels are in them, by the compiler's own input."""

from __future__ import annotations

import collections
import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from sparsejax.hardware.target import Target
from sparsejax.training.growth_scores import make_score_step
from sparsejax.training.recipe import Recipe, build_recipe
from sparsejax.training.steps import make_train_step
from tests.training.tiny import tiny_run

TARGETS = jax.ShapeDtypeStruct((4, 16), jnp.int32)
FORWARD, INPUT, VALUES = "block_matmul_forward", "block_matmul_input_gradient", "block_matmul_value_gradient"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    changes = {"model_hidden": 256, "model_mlp": 512, "model_head_dim": 128, "model_compute_dtype": "bfloat16"}
    changes |= {"topology_block": (128, 128), "topology_grow": "gradient", "model_implementation": "pallas_tpu"}
    run = tiny_run(tmp_path_factory.mktemp("tpu"), **changes)
    return build_recipe(run, steps=12, vocab_size=257, start_id=256, target=Target("tpu", "v5e"))


def kernels(function, *arguments) -> collections.Counter[str]:
    """How often each kernel of ours is in a program for TPU; the layers are one loop body."""
    text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
    return collections.Counter(re.findall(r'kernel_name = "(block_\w+)"', text))


def step_kernels(recipe: Recipe) -> collections.Counter[str]:
    return kernels(make_train_step(recipe), recipe.abstract, TARGETS, jax.eval_shape(lambda: recipe.rates))


def test_the_train_step_is_four_products_a_layer_and_their_gradients(recipe):
    # q, k and v are one product, gate and up another; o and down are the others. Values' gradients are their own.
    assert step_kernels(recipe) == {FORWARD: 4, INPUT: 4, VALUES: 7}


def test_weights_with_free_slots_have_products_of_their_own(recipe):
    topology = dataclasses.replace(recipe.run.topology, drop="global_magnitude", grow="random")
    run = dataclasses.replace(recipe.run, topology=topology)
    moving = build_recipe(run, steps=12, vocab_size=257, start_id=256, target=recipe.target)
    assert step_kernels(moving) == {FORWARD: 7, INPUT: 7, VALUES: 7}


def test_the_score_program_sums_the_gradient_of_every_weight_as_it_is_made(recipe):
    found = kernels(make_score_step(recipe), recipe.abstract, TARGETS)
    assert found["block_norms"] == 7 and found[INPUT] == found[VALUES] == 7
