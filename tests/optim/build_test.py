"""The chain: order of clipping, Adam, decay and learning rate; use from plain Optax code."""

import dataclasses
import doctest

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsejax.config import OptimConfig
from sparsejax.optim import build
from sparsejax.optim.build import build_optimizer, sparse_adam
from sparsejax.optim.schedules import learning_rate
from sparsejax.optim.sparse_adam import remap, sparse_adam_state

CONFIG = OptimConfig(
    form="smet",
    lr=0.01,
    schedule="linear",
    warmup_fraction=0.0,
    min_ratio=0.5,
    decay_fraction=0.1,
    restarts=1,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    density_exponent=1.0,
    vocabulary_lr_ratio=1.0,
    ramp=10,
    weight_decay=0.1,
    clip=0.0,
    moment_dtype="float32",
    ema_decay=0.0,
    galore_rank=4,
    galore_every=10,
)
PARAMS = {"norm": jnp.full((4,), 2.0), "values": jnp.full((3, 2, 2), 2.0)}
DENSITIES = {"norm": 1.0, "values": 0.25}
DECAY_MASK = {"norm": False, "values": True}
VOCABULARY_MASK = {"norm": False, "values": False}


def run(config: OptimConfig, gradients: list[dict], old_slots: dict | None = None) -> list[dict]:
    """Updates of a few steps at fixed parameters; the rewiring, if any, comes before the last step."""
    optimizer = build_optimizer(config, DENSITIES, DECAY_MASK, VOCABULARY_MASK, rounding_seed=0)
    rate = learning_rate(config, 11)
    update, state, history = jax.jit(optimizer.update), optimizer.init(PARAMS), []
    for step, gradient in enumerate(gradients):
        if old_slots is not None and step == len(gradients) - 1:
            state = remap(state, old_slots)
        updates, state = update(gradient, state, PARAMS)
        history.append(jax.tree.map(lambda update, step=step: -rate(step) * update, updates))
    return history


def ones() -> dict:
    return jax.tree.map(jnp.ones_like, PARAMS)


def test_the_documented_example_runs():
    outcome = doctest.testmod(build)
    assert outcome.attempted > 5
    assert outcome.failed == 0


def test_decay_takes_the_learning_rate_but_neither_scale_nor_ramp():
    # A constant gradient of 1 moves by lr d^-p r = lr * 4 * r; decay moves by lr * 0.1 * 2, masked off the norm.
    old_slots = {"values": jnp.array([0, -1, 2], jnp.int32)}
    history = run(CONFIG, [ones()] * 3, old_slots)
    for step, rate in enumerate([0.01, 0.0095, 0.009]):
        ramp = np.array([1.0, 0.1, 1.0] if step == 2 else [1.0, 1.0, 1.0])[:, None, None]
        expected = np.broadcast_to(-rate * (4 * ramp + 0.2), (3, 2, 2))
        np.testing.assert_allclose(history[step]["values"], expected, rtol=1e-5)
        np.testing.assert_allclose(history[step]["norm"], -rate, rtol=1e-5)


def test_smet_code_couples_the_decay():
    config = dataclasses.replace(CONFIG, form="smet_code", ramp=1)
    (with_decay,) = run(config, [jax.tree.map(jnp.zeros_like, PARAMS)])
    # The gradient of Adam is 0 + 0.1 * 2, whose size Adam divides out: a full step, and none for the norm.
    np.testing.assert_allclose(with_decay["values"], np.full((3, 2, 2), -0.04), rtol=1e-5)
    np.testing.assert_array_equal(with_decay["norm"], np.zeros(4))


def test_clipping_bounds_the_global_norm_before_adam():
    config = dataclasses.replace(CONFIG, weight_decay=0.0, eps=1.0)
    small = jax.tree.map(lambda g: 0.5 * g / 4, ones())  # ones have the global norm 4
    clipped = run(dataclasses.replace(config, clip=0.5), [ones(), small])
    for got, want in zip(clipped, run(config, [small, small]), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


def test_a_dense_tree_is_adamw():
    params = {"a": jnp.arange(1.0, 5.0), "b": jnp.ones((2, 3))}
    densities = jax.tree.map(lambda _: 1.0, params)
    ours, theirs = sparse_adam(1e-3, densities, weight_decay=0.1), optax.adamw(1e-3, weight_decay=0.1)
    trees = [(tx, params, tx.init(params), jax.jit(tx.update)) for tx in (ours, theirs)]
    rng = np.random.default_rng(0)
    for _ in range(20):
        gradient = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
        advanced = []
        for tx, weights, state, update in trees:
            updates, state = update(gradient, state, weights)
            advanced.append((tx, optax.apply_updates(weights, updates), state, update))
        trees = advanced
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), trees[0][1], trees[1][1])


def test_configured_and_library_optimizers_agree():
    config = dataclasses.replace(CONFIG, schedule="constant", clip=1.0)
    library = sparse_adam(
        config.lr,
        DENSITIES,
        weight_decay=0.1,
        decay_mask=DECAY_MASK,
        clip=1.0,
        b2=0.99,
        density_exponent=1.0,
        ramp=10,
    )
    updates, state = library.update(ones(), library.init(PARAMS), PARAMS)
    (configured,) = run(config, [ones()])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, configured)
    assert int(sparse_adam_state(state).count) == 1


def test_bfloat16_moments_come_from_the_config():
    config = dataclasses.replace(CONFIG, moment_dtype="bfloat16")
    state = build_optimizer(config, DENSITIES, DECAY_MASK, VOCABULARY_MASK, rounding_seed=3).init(PARAMS)
    assert {leaf.dtype for leaf in jax.tree.leaves(sparse_adam_state(state).mu)} == {jnp.dtype(jnp.bfloat16)}


def test_galore_projects_between_clipping_and_decay():
    # A matrix of ones a layer has the leading singular vector P = (1, 1) / sqrt(2) and the projection sqrt(2) (1, 1).
    params = {"kernel": jnp.full((3, 2, 2), 2.0), "norm": jnp.full((4,), 2.0)}
    config = dataclasses.replace(CONFIG, form="galore", galore_rank=1, galore_every=1, clip=1.0, density_exponent=0.0)
    densities, decay_mask = {"kernel": 1.0, "norm": 1.0}, {"kernel": True, "norm": False}
    optimizer = build_optimizer(config, densities, decay_mask, {"kernel": False, "norm": False}, rounding_seed=0)
    gradient = jax.tree.map(jnp.ones_like, params)
    directions, state = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    # Adam makes (1, 1) of that, whatever its size; P brings it back, times 1/4; the decay adds 0.1 * 2.
    np.testing.assert_allclose(directions["kernel"], np.full((3, 2, 2), 0.25 / np.sqrt(2) + 0.2), rtol=1e-5)
    np.testing.assert_allclose(directions["norm"], np.ones(4), rtol=1e-5)
    assert sparse_adam_state(state).mu["kernel"].shape == (3, 1, 2)


def test_a_pull_is_added_after_clipping_and_before_adam():
    def pull(gradient: dict, params: dict) -> dict:
        return jax.tree.map(lambda g, w: g + 0.5 * w, gradient, params)

    config = dataclasses.replace(CONFIG, b1=0.0, b2=0.0, eps=1.0, clip=0.04, density_exponent=0.0, weight_decay=0.0)
    optimizer = build_optimizer(
        config, DENSITIES, DECAY_MASK, VOCABULARY_MASK, rounding_seed=0, pulls=[stateless(pull)]
    )
    directions, _ = optimizer.update(ones(), optimizer.init(PARAMS), PARAMS)
    # Ones of global norm 4 are clipped to 0.01; the pull of 0.5 * 2 comes to that. Adam: g / (g + 1).
    np.testing.assert_allclose(directions["norm"], np.full(4, 1.01 / 2.01), rtol=1e-5)


def stateless(function) -> optax.GradientTransformationExtraArgs:
    return optax.with_extra_args_support(optax.stateless(function))


def test_embedding_and_head_have_a_rate_of_their_own():
    params = {"embed": jnp.full((3, 2), 2.0), "head": jnp.full((2, 3), 2.0), "values": jnp.full((3, 2, 2), 2.0)}
    densities = {"embed": 1.0, "head": 1.0, "values": 0.25}
    decay_mask = {"embed": False, "head": True, "values": True}
    vocabulary_mask = {"embed": True, "head": True, "values": False}
    config = dataclasses.replace(CONFIG, vocabulary_lr_ratio=4.0)
    optimizer = build_optimizer(config, densities, decay_mask, vocabulary_mask, rounding_seed=0)
    directions, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    # Adam's first direction is 1, of a block times 1 / 0.25; the decay adds 0.1 * 2; then the ratio of 4.
    np.testing.assert_allclose(directions["embed"], np.full((3, 2), 4.0), rtol=1e-5)
    np.testing.assert_allclose(directions["head"], np.full((2, 3), 4 * 1.2), rtol=1e-5)
    np.testing.assert_allclose(directions["values"], np.full((3, 2, 2), 4 + 0.2), rtol=1e-5)
    alone = build_optimizer(CONFIG, densities, decay_mask, vocabulary_mask, rounding_seed=0)
    assert jax.tree.structure(alone.init(params)) != jax.tree.structure(optimizer.init(params))
