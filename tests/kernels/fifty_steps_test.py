"""An MLP of three block-sparse weights trained on a simulated TPU, beside the same on the definition of the product."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.pallas import tpu as pltpu

from sparsejax.kernels.api import block_matmul
from sparsejax.kernels.swiglu_matmul import swiglu_matmul
from sparsejax.topology.blocks import BlockGrid, BlockSparse
from tests.kernels.cases import Case, cross, full, make_weight
from tests.kernels.contract_test import draw

WIDE, NARROW = BlockGrid((256, 512), (128, 128)), BlockGrid((512, 256), (128, 128))
STEPS = 50


def losses(name: str, weights: dict[str, BlockSparse]) -> list[float]:
    """Mean squared error of every step of Adam on one fixed batch; activations bfloat16, values float32."""
    x, target = draw((24, 256), 10, jnp.bfloat16), 0.1 * draw((24, 256), 11)
    optimizer = optax.adam(2e-4)

    def loss(values: dict[str, jax.Array]) -> jax.Array:
        w = {kind: dataclasses.replace(weight, values=values[kind]) for kind, weight in weights.items()}
        h = swiglu_matmul(x, w["gate"], w["up"], implementation=name, checkpoint_as="linear_output")
        return jnp.mean((block_matmul(h, w["down"], implementation=name).astype(jnp.float32) - target) ** 2)

    @jax.jit
    def step(values: dict[str, jax.Array], state: optax.OptState):
        value, gradient = jax.value_and_grad(loss)(values)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(values, updates), state, value

    values = {kind: 0.05 * weight.values for kind, weight in weights.items()}
    state, seen = optimizer.init(values), []
    for _ in range(STEPS):
        values, state, value = step(values, state)
        seen.append(float(value))
    return seen


@pytest.mark.slow
def test_the_loss_curve_is_that_of_the_reference_within_bfloat16():
    # Masks that overlap: units that gate, up and down all reach.
    cases = {"gate": (WIDE, full), "up": (WIDE, cross), "down": (NARROW, cross)}
    weights = {kind: make_weight(Case(grid, mask, 1, 24), seed=1) for kind, (grid, mask) in cases.items()}
    want = losses("reference", weights)
    with pltpu.force_tpu_interpret_mode(pltpu.InterpretParams(out_of_bounds_reads="raise", uninitialized_memory="nan")):
        got = losses("pallas_tpu@v5e", weights)
    assert want[-1] < 0.8 * want[0], "nothing was learned, so nothing was compared"
    np.testing.assert_allclose(got, want, rtol=1e-2)
