"""Thirty updates with two rewirings against a reference of plain Python floats, written from the paper.

The reference walks over blocks and over the numbers in a block; it shares no code with the package.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.optim.build import sparse_adam
from sparsejax.optim.sparse_adam import remap
from sparsejax.topology.slots import gather_slots

STEPS, LAYERS, SLOTS, BLOCK, WIDTH = 30, 2, 4, (2, 3), 5
B1, B2, EPS, RAMP, EXPONENT, DENSITY, DECAY = 0.9, 0.999, 1e-8, 6, 0.5, 0.25, 0.1
RATES = [1e-3 * (1 + step % 7) for step in range(STEPS)]

# Before the update of a step, for each layer: new slot -> old slot. Slots are written a b c d; a capital is regrown.
OLD_SLOTS = {
    10: [[1, -1, 0, 2], [0, 1, -1, 3]],  # layer 0: a b c d -> b X a c (d dropped); layer 1: c is replaced in place
    17: [[0, 2, -1, -1], [-1, 0, 1, 2]],  # layer 0: b X a c -> b a Y -: X dies at age 7; layer 1: all move up
}
FREE = (0, 3, 17)  # layer, slot and step of the "-": from then on the slot is free, its gradient 0


@dataclasses.dataclass
class Block:
    """One block (or one dense vector) of the reference: weights, moments, age."""

    w: list[float]
    m: list[float]
    v: list[float]
    age: int = 0

    @classmethod
    def of(cls, weights) -> "Block":
        return cls(w=[float(w) for w in weights], m=[0.0] * len(weights), v=[0.0] * len(weights))

    def update(self, gradient, form: str, count: int, rate: float, sparse: bool, decay: float) -> list[float]:
        self.age += 1
        regrown = self.age < count
        t = {"smet": self.age, "naive": count, "smet_code": self.age + 1 if regrown else self.age}[form]
        scale = DENSITY**-EXPONENT if sparse else 1.0
        ramp = min(t / RAMP, 1.0) if form == "smet" and regrown else 1.0
        updates = []
        for i in range(len(self.w)):
            g = float(gradient[i])
            if form == "smet_code":
                g = g + decay * self.w[i]
            self.m[i] = B1 * self.m[i] + (1 - B1) * g
            self.v[i] = B2 * self.v[i] + (1 - B2) * g * g
            if form == "smet_code":
                self.m[i] = self.m[i] * min(t / RAMP, 1.0)
            m_hat, v_hat = self.m[i] / (1 - B1**t), self.v[i] / (1 - B2**t)
            update = -rate * scale * ramp * m_hat / (math.sqrt(v_hat) + EPS)
            if form != "smet_code":
                update = update - rate * decay * self.w[i]
            updates.append(update)
            self.w[i] = self.w[i] + update
        return updates


def run_reference(form: str, params: dict, gradients: list[dict]) -> list[dict]:
    """Updates of every step, as NumPy arrays in the layout of the parameters."""
    size = BLOCK[0] * BLOCK[1]
    layers = [[Block.of(params["q"]["values"][i, j].reshape(-1)) for j in range(SLOTS)] for i in range(LAYERS)]
    scale = Block.of(params["scale"])
    history = []
    for step, gradient in enumerate(gradients):
        for layer, old_slot in enumerate(OLD_SLOTS.get(step, [])):
            old = layers[layer]
            layers[layer] = [old[slot] if slot >= 0 else Block.of([0.0] * size) for slot in old_slot]
        values = np.zeros((LAYERS, SLOTS, *BLOCK))
        for i in range(LAYERS):
            for j in range(SLOTS):
                g = gradient["q"]["values"][i, j].reshape(-1)
                new = layers[i][j].update(g, form, step + 1, RATES[step], sparse=True, decay=DECAY)
                values[i, j] = np.reshape(new, BLOCK)
        dense = scale.update(gradient["scale"], form, step + 1, RATES[step], sparse=False, decay=0.0)
        history.append({"q": {"values": values}, "scale": np.array(dense)})
    return history


def run_package(form: str, params: dict, gradients: list[dict]) -> list[dict]:
    """The same run through the optimizer chain, jitted, in the dtype of the parameters."""
    optimizer = sparse_adam(
        lambda step: jnp.asarray(RATES)[step],
        {"q": {"values": DENSITY}, "scale": 1.0},
        b1=B1,
        b2=B2,
        eps=EPS,
        form=form,
        density_exponent=EXPONENT,
        ramp=RAMP,
        weight_decay=DECAY,
        decay_mask={"q": {"values": True}, "scale": False},
    )
    update = jax.jit(optimizer.update)
    params, state = jax.tree.map(jnp.asarray, params), optimizer.init(params)
    history = []
    for step, gradient in enumerate(gradients):
        if step in OLD_SLOTS:
            old_slot = jnp.array(OLD_SLOTS[step], jnp.int32)
            params["q"]["values"] = gather_slots(params["q"]["values"], old_slot)
            state = jax.jit(remap)(state, {"q/values": old_slot})
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        history.append(updates)
    return history


def make_run(dtype: str) -> tuple[dict, list[dict]]:
    rng = np.random.default_rng(0)

    def tree() -> dict:
        values, scale = rng.normal(size=(LAYERS, SLOTS, *BLOCK)), rng.normal(size=WIDTH)
        return {"q": {"values": values.astype(dtype)}, "scale": scale.astype(dtype)}

    params, gradients = tree(), [tree() for _ in range(STEPS)]
    layer, slot, first = FREE
    for gradient in gradients[first:]:
        gradient["q"]["values"][layer, slot] = 0
    return params, gradients


@pytest.mark.parametrize("form", ["smet", "naive", "smet_code"])
def test_float64_follows_the_reference(form):
    params, gradients = make_run("float64")
    with jax.enable_x64(True):
        history = run_package(form, params, gradients)
    for updates, expected in zip(history, run_reference(form, params, gradients), strict=True):
        for got, want in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
            assert got.dtype == np.float64
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=0)


@pytest.mark.parametrize("form", ["smet", "naive", "smet_code"])
def test_float32_follows_the_reference(form):
    params, gradients = make_run("float32")
    history = run_package(form, params, gradients)
    for updates, expected in zip(history, run_reference(form, params, gradients), strict=True):
        for got, want in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
            assert got.dtype == np.float32
            # Where positive and negative gradients cancel, the digits lost are those of the largest update.
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def test_the_forms_and_the_rewirings_make_a_difference():
    params, gradients = make_run("float64")
    smet, naive, code = (run_reference(form, params, gradients) for form in ("smet", "naive", "smet_code"))
    after = [run[10]["q"]["values"][0, 1] for run in (smet, naive, code)]  # the first regrown block
    assert np.abs(after[1]).min() > 2 * np.abs(after[0]).max() > 0
    assert np.abs(after[2] / after[0] - 1).min() > 0.05
