"""Training on the block-sparse product follows training on its definition, step by step."""

import jax
import numpy as np
import pytest

from sparsejax.training.programs import init_state
from sparsejax.training.steps import make_train_step
from tests.training.tiny import tiny_recipe, write_text

STEPS = 50


def batches(directory):
    """Rows of real text, so that there is something to learn; an epoch is ten batches."""
    text = np.frombuffer(write_text(directory / "rows.txt").read_bytes(), np.uint8)
    rows = text[: 10 * 4 * 32].reshape(10, 4, 32).astype(np.int32)
    return [rows[step % 10] for step in range(STEPS)]


def curve(directory, **changes):
    """The loss of every step."""
    shape = {"model_hidden": 32, "model_mlp": 64, "model_head_dim": 16, "topology_block": (8, 8), "train_steps": STEPS}
    recipe = tiny_recipe(directory, data_sequence_length=32, data_unique_tokens=1280, **shape | changes)
    step, state, losses = jax.jit(make_train_step(recipe), donate_argnums=0), init_state(recipe), []
    for target in batches(directory):
        state, metrics = step(state, target, recipe.rates)
        losses.append(metrics["loss"])
    return np.array(losses, np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["none", "column"])
@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-5), ("bfloat16", 5e-3)])
def test_the_loss_curve_is_that_of_the_reference_product(tmp_path, dtype, apart, balance):
    run = {"model_compute_dtype": dtype, "topology_balance": balance}
    reference = curve(tmp_path, model_implementation="reference", **run)
    xla = curve(tmp_path, model_implementation="xla", **run)
    assert reference[-1] < reference[0] - 3, "little was learned, so there is little to compare"
    # A learning rate one percent off would move the curve by 0.02.
    np.testing.assert_allclose(xla, reference, rtol=0, atol=apart)
