"""The programs of a run on a Hopper GPU that is not here: which kernels are in them."""

from __future__ import annotations

import collections
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


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    changes = {"model_hidden": 128, "model_mlp": 256, "model_head_dim": 64, "model_compute_dtype": "bfloat16"}
    changes |= {"topology_block": (64, 64), "topology_grow": "gradient", "model_implementation": "pallas_gpu"}
    # The fused attention of GPUs asks the CUDA that is not here for its version.
    run = tiny_run(tmp_path_factory.mktemp("gpu"), model_attention="xla", **changes)
    return build_recipe(run, steps=12, vocab_size=257, start_id=256, target=Target("gpu", "h200"))


def kernels(function, *arguments) -> collections.Counter[str]:
    """How often each kernel of ours is in a program for CUDA; the layers are one loop body."""
    text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    return collections.Counter(re.findall(r"custom_call @mosaic_gpu\w*.*?(block_\w+?)_mosaic", text))


def test_the_train_step_is_four_products_a_layer_and_their_gradients(recipe):
    # q, k and v are one product, gate and up another; o and down are the others.
    found = kernels(make_train_step(recipe), recipe.abstract, TARGETS, jax.eval_shape(lambda: recipe.rates))
    assert found == {"block_columns": 4, "block_rows": 4, "block_values": 4}


@pytest.mark.slow
def test_the_score_program_sums_the_gradient_of_every_weight_and_makes_none(recipe):
    found = kernels(make_score_step(recipe), recipe.abstract, TARGETS)
    assert found.keys() == {"block_columns", "block_rows", "block_norms"}
    assert found["block_rows"] == found["block_norms"] == 7
