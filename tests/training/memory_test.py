"""The saving is real: measured bytes of the state, and of what the compiled step holds."""

import re

import jax
import jax.numpy as jnp
import pytest

from sparsejax.models.accounting import memory
from sparsejax.training.memory import measure
from sparsejax.training.recipe import dense_twin
from sparsejax.training.steps import make_train_step
from tests.training.tiny import tiny_recipe

# Wide enough that a weight outweighs everything else a step of 8 tokens needs.
WIDE = {
    "model_hidden": 256,
    "model_mlp": 512,
    "model_heads": 4,
    "model_kv_heads": 4,
    "model_head_dim": 64,
    "model_layers": 4,
    "train_batch_size": 1,
    "data_sequence_length": 8,
}


@pytest.mark.parametrize("grow", ["random", "momentum", "gradient_sum"])
def test_measured_bytes_are_those_of_the_formula(tmp_path, grow):
    recipe = tiny_recipe(tmp_path, topology_grow=grow)
    maskable, whole = measure(recipe, recipe.abstract)
    counted = [weight.counted for weight in recipe.weights.values()]
    expected = memory(
        recipe.shape, counted, rewired=True, remembered={"random": 0, "momentum": 1, "gradient_sum": 2}[grow]
    )
    for kind in ("values", "indices", "ages", "moments", "gradients"):
        assert getattr(maskable, kind) == getattr(expected.maskable, kind), kind
        assert getattr(whole, kind) == getattr(expected.total, kind), kind


@pytest.mark.parametrize("density", [0.5, 0.25, 0.125])
@pytest.mark.parametrize("block", [(16, 16), (32, 32), (64, 64)])
def test_state_bytes_follow_density_within_two_percent(tmp_path, density, block):
    recipe = tiny_recipe(tmp_path, **WIDE, topology_density=density, topology_block=block)
    twin = dense_twin(recipe)
    mine, theirs = measure(recipe, recipe.abstract)[0], measure(twin, twin.abstract)[0]
    # Ages are counted on top of what was promised.
    assert mine.total <= (density + 0.02) * theirs.total
    assert theirs.indices == theirs.ages == 0


def compiled_step(recipe):
    target = jax.ShapeDtypeStruct((recipe.run.train.batch_size, recipe.run.data.sequence_length), jnp.int32)
    return jax.jit(make_train_step(recipe), donate_argnums=0).lower(recipe.abstract, target, recipe.rates).compile()


@pytest.mark.parametrize("implementation", ["xla", "transient"])
def test_the_compiled_step_holds_no_dense_stack_and_saves_the_gradients(tmp_path, implementation):
    changes = {**WIDE, "topology_density": 0.25, "topology_block": (16, 16), "model_implementation": implementation}
    recipe = tiny_recipe(tmp_path, **changes)
    twin = dense_twin(recipe)
    sparse, dense = compiled_step(recipe), compiled_step(twin)

    layers = recipe.run.model.layers
    shapes = {f"[{layers},{k},{n}]" for k, n in (weight.grid.shape for weight in recipe.weights.values())}
    found = set(re.findall(r"\[\d+,\d+,\d+\]", sparse.as_text()))
    assert shapes & set(re.findall(r"\[\d+,\d+,\d+\]", dense.as_text())), "the search must find the dense twin's"
    assert not shapes & found

    saved = dense.memory_analysis().temp_size_in_bytes - sparse.memory_analysis().temp_size_in_bytes
    gradients = measure(twin, twin.abstract)[0].gradients
    assert saved >= 0.9 * (1 - 0.25) * gradients
