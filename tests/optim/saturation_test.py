"""A saturated state makes the same next update of old blocks, and full bias correction in both forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.optim.build import sparse_adam
from sparsejax.optim.saturation import saturate
from sparsejax.optim.sparse_adam import remap, sparse_adam_state

DENSITIES = {"values": 0.5, "bias": 1.0}
PARAMS = {"values": jnp.zeros((3, 1, 1)), "bias": jnp.zeros(2)}
GRADS = {"values": jnp.array([1.0, -2.0, 0.5]).reshape(3, 1, 1), "bias": jnp.array([1.0, 3.0])}


def after(optimizer, updates):
    state = optimizer.init(PARAMS)
    for number in range(updates):
        # Gradients that vary, or corrected moments would hide the difference.
        grads = {name: leaf * (1 + number % 3) for name, leaf in GRADS.items()}
        _, state = optimizer.update(grads, state, PARAMS)
    return state


def test_counts_grow_and_corrected_moments_stay():
    state = after(sparse_adam(1e-3, DENSITIES), 5)
    before, late = sparse_adam_state(state), sparse_adam_state(saturate(state, 20_000, 0.9, 0.999))
    assert int(late.count) == 20_005 and late.ages["values"].tolist() == [20_005] * 3
    for name in PARAMS:
        np.testing.assert_allclose(late.mu[name], before.mu[name] / (1 - 0.9**5), rtol=1e-5)
        # 0.999^20005 is 2e-9: nothing is left to correct.
        np.testing.assert_allclose(late.nu[name], before.nu[name] / (1 - 0.999**5), rtol=1e-5)


@pytest.mark.parametrize("form", ["smet", "naive"])
def test_a_long_trained_state_is_left_as_it_is(form):
    optimizer = sparse_adam(1e-3, DENSITIES, form=form, b1=0.5, b2=0.6)
    state = after(optimizer, 60)
    late = saturate(state, 1000, 0.5, 0.6)
    one, _ = optimizer.update(GRADS, state, PARAMS)
    other, _ = optimizer.update(GRADS, late, PARAMS)
    for name in PARAMS:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5)


def test_a_regrown_block_starts_3_16_learning_rates_long_under_naive_and_ramps_under_smet():
    first = {}
    for form in ("naive", "smet"):
        optimizer = sparse_adam(1.0, DENSITIES, form=form, density_exponent=0.0, ramp=100)
        state = saturate(after(optimizer, 5), 20_000, 0.9, 0.999)
        state = remap(state, {"values": jnp.array([0, 1, -1])})
        assert sparse_adam_state(state).ages["values"].tolist() == [20_005, 20_005, 0]
        updates, _ = optimizer.update(GRADS, state, PARAMS)
        first[form] = float(updates["values"][2, 0, 0])
    assert first["naive"] == pytest.approx(-0.1 / 0.001**0.5, rel=1e-3)
    assert first["smet"] == pytest.approx(-1 / 100, rel=1e-3)


def test_blocks_without_an_update_are_left_alone():
    optimizer = sparse_adam(1e-3, DENSITIES)
    state = remap(after(optimizer, 2), {"values": jnp.array([0, -1, 2])})
    late = sparse_adam_state(saturate(state, 100, 0.9, 0.999))
    assert late.ages["values"].tolist() == [102, 0, 102]
    assert late.mu["values"][1, 0, 0] == late.nu["values"][1, 0, 0] == 0.0
