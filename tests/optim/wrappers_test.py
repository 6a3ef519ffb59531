"""Sparse Adam inside the wrappers of Optax and Flax: the same weights as on its own, rewirings included."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparsejax.config import RANGES
from sparsejax.optim.build import sparse_adam
from sparsejax.optim.sparse_adam import remap, scale_by_sparse_adam
from sparsejax.optim.weight_average import average_weights, averaged_weights

DENSITIES = {"up": {"values": 0.25}, "down": {"values": 0.5}, "bias": 1.0, "embed": 1.0}
DECAY = {"up": True, "down": True, "bias": False, "embed": False}
OLD_SLOTS = {"up/values": jnp.array([-1, 0, 1, 3]), "down/values": jnp.array([[2, 0, -1], [-1, 1, 2]])}
OURS = {"up": "ours", "down": "ours", "bias": "ours", "embed": "theirs"}
SETTINGS = {"weight_decay": 0.1, "decay_mask": DECAY, "clip": 1.0, "ramp": 3}


def draw(seed: int) -> dict:
    shapes = {"up": {"values": (4, 2, 3)}, "down": {"values": (2, 3, 2, 2)}, "bias": (3,), "embed": (5, 2)}
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda node: isinstance(node, tuple))
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return tree.unflatten([jax.random.normal(key, shape) for key, shape in zip(keys, leaves, strict=True)])


def ours(**changes):
    return sparse_adam(0.1, **{"densities": DENSITIES, **SETTINGS, **changes})


def injected():
    return optax.inject_hyperparams(sparse_adam)(learning_rate=0.1, densities=DENSITIES, **SETTINGS)


def halves():
    """Two sparse Adams, each for weights of its own; no clipping, whose norm is that of all weights."""
    labels = {"up": "up", "down": "rest", "bias": "rest", "embed": "theirs"}
    one = {name: ours(clip=0.0) for name in ("up", "rest")}
    return optax.multi_transform({**one, "theirs": optax.set_to_zero()}, labels)


def masked_ours(**changes):
    """The comparison for wrappers that leave the embedding to others."""
    return optax.chain(
        optax.masked(ours(**changes), {name: label == "ours" for name, label in OURS.items()}),
        optax.masked(optax.set_to_zero(), {name: label != "ours" for name, label in OURS.items()}),
    )


def alone_without_embedding(**changes):
    """``ours`` told of its own leaves only, by hand: what every mask must come down to."""
    inner = ours(**changes)

    def pick(tree):
        return None if tree is None else {name: leaf for name, leaf in tree.items() if OURS[name] == "ours"}

    def update(updates, state, params=None):
        new, state = inner.update(pick(updates), state, pick(params))
        return {**new, "embed": jnp.zeros_like(updates["embed"])}, state

    return optax.GradientTransformation(lambda params: inner.init(pick(params)), update)


EVERYTHING = {
    "chain": lambda: optax.chain(optax.identity(), ours(), optax.identity()),
    "inject_hyperparams": injected,
    "apply_if_finite": lambda: optax.apply_if_finite(ours(), 3),
    "MultiSteps of one": lambda: optax.MultiSteps(ours(), 1),
    "masked by all": lambda: optax.masked(ours(), True),
    "densities by a function": lambda: ours(densities=lambda tree: DENSITIES | {"not there": 0.5}),
    "densities of subtrees": lambda: ours(densities={"up": 0.25, "down": 0.5, "bias": 1.0, "embed": 1}),
}
MASKED = {
    "multi_transform": lambda: optax.multi_transform({"ours": ours(), "theirs": optax.set_to_zero()}, OURS),
    "partition": lambda: optax.partition({"ours": ours(), "theirs": optax.set_to_zero()}, OURS),
    "masked": masked_ours,
    "masked by a function": lambda: optax.chain(
        optax.masked(ours(), lambda tree: {name: OURS[name] == "ours" for name in tree}),
        optax.masked(optax.set_to_zero(), lambda tree: {name: OURS[name] != "ours" for name in tree}),
    ),
    "all of them": lambda: optax.apply_if_finite(
        optax.named_chain(
            (
                "sums",
                optax.MultiSteps(optax.multi_transform({"ours": injected(), "theirs": optax.set_to_zero()}, OURS), 1),
            ),
        ),
        3,
    ),
}


def train(optimizer, jit=lambda function: function) -> dict:
    """Weights after a few updates with one rewiring of both sparse weights between them."""
    params = draw(0)
    state, update, move = optimizer.init(params), jit(optimizer.update), jit(remap)
    for step in range(4):
        if step == 2:
            state = move(state, OLD_SLOTS)
        updates, state = update(draw(step + 1), state, params)
        params = optax.apply_updates(params, updates)
    return params


def check_equal(got, want, rtol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), got, want)


def test_wrappers_change_nothing():
    want = train(ours())
    for name, make in EVERYTHING.items():
        got = train(make(), jax.jit if name == "inject_hyperparams" else lambda function: function)
        assert jax.tree.structure(got) == jax.tree.structure(want), name
        check_equal(got, want)


def test_leaves_of_others_are_left_out():
    want = train(alone_without_embedding())
    for name, make in MASKED.items():
        check_equal(train(make(), jax.jit if name == "all of them" else lambda function: function), want)
    check_equal(train(halves()), train(alone_without_embedding(clip=0.0)))


def test_injected_numbers_may_change_as_training_goes():
    optimizer, params = injected(), draw(0)
    state = optimizer.init(params)
    state.hyperparams["learning_rate"] = jnp.float32(0.2)
    state.hyperparams["clip"] = jnp.float32(0.0)
    state.hyperparams["b1"] = jnp.float32(0.0)
    updates, _ = jax.jit(optimizer.update)(draw(1), state, params)
    plain = sparse_adam(0.2, DENSITIES, **{**SETTINGS, "clip": 0.0}, b1=0.0)
    want, _ = plain.update(draw(1), plain.init(params), params)
    check_equal(updates, want)
    with pytest.raises(ValueError, match=r"^the density of bias is traced: inject_hyperparams needs static_args="):
        jax.jit(optax.inject_hyperparams(sparse_adam)(0.1, densities=0.5).init)(params)


class Model(nnx.Module):
    """The tree of ``draw`` as a Flax model."""

    def __init__(self):
        self.up, self.down = nnx.Module(), nnx.Module()
        tree = draw(0)
        self.up.values = nnx.Param(tree["up"]["values"])
        self.down.values = nnx.Param(tree["down"]["values"])
        self.bias, self.embed = nnx.Param(tree["bias"]), nnx.Param(tree["embed"])


@pytest.mark.parametrize("form", [lambda s: s, nnx.as_pure, nnx.to_pure_dict, lambda s: DENSITIES])
@pytest.mark.parametrize("wrapper", [lambda tx: tx, lambda tx: optax.MultiSteps(tx, 1)])
def test_in_an_nnx_optimizer(form, wrapper):
    model, want = Model(), train(ours())
    start = nnx.state(model, nnx.Param)
    densities, mask = start, start
    nnx_densities = jax.tree.unflatten(jax.tree.structure(start), _by_path(start, DENSITIES))
    nnx_mask = jax.tree.unflatten(jax.tree.structure(start), [bool(v != 1.0) for v in _by_path(start, DENSITIES)])
    densities, mask = form(nnx_densities), form(nnx_mask)
    if densities is DENSITIES:
        mask = DECAY
    optimizer = nnx.Optimizer(model, wrapper(ours(densities=densities, decay_mask=mask)), wrt=nnx.Param)
    for step in range(4):
        if step == 2:
            optimizer.opt_state = nnx.data(remap(optimizer.opt_state, OLD_SLOTS))
        gradients = nnx.state(model, nnx.Param)
        nnx.replace_by_pure_dict(gradients, draw(step + 1))
        optimizer.update(model, gradients)
    check_equal(nnx.to_pure_dict(nnx.state(model, nnx.Param)), want)


def _by_path(tree, settings):
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]
    flat = {"up/values": 0.25, "down/values": 0.5, "bias": 1.0, "embed": 1.0}
    return [flat[name.removesuffix("/value")] for name in names]


@pytest.mark.parametrize("make", [lambda: ours(clip=0.0), lambda: masked_ours(clip=0.0)])
def test_gradients_summed_so_far_move_with_their_blocks(make):
    optimizer, params = optax.MultiSteps(make(), 3), draw(0)
    state = optimizer.init(params)
    for step in range(2):
        _, state = optimizer.update(draw(step), state, params)
    moved = remap(state, OLD_SLOTS)
    summed, kept = state.acc_grads["up"]["values"], moved.acc_grads["up"]["values"]
    np.testing.assert_array_equal(kept, jnp.stack([0 * summed[0], summed[0], summed[1], summed[3]]))
    np.testing.assert_array_equal(moved.acc_grads["bias"], state.acc_grads["bias"])
    assert int(moved.mini_step) == 2


def test_every_array_kept_by_slot_moves_or_is_refused():
    params = draw(0)
    gradient = draw(1)
    kept = {
        "trace": optax.trace(0.9),
        "ema": optax.ema(0.9),
        "grad_acc": optax.apply_every(3),
        "mu": optax.scale_by_lion(),
        "weights": average_weights(0.9),
    }
    for field, stage in kept.items():
        optimizer = optax.chain(ours(), stage)
        _, state = optimizer.update(gradient, optimizer.init(params), params)
        moved = remap(state, OLD_SLOTS, params=params)
        before, after = (getattr(each[1], field)["up"]["values"] for each in (state, moved))
        fresh = params["up"]["values"][0] if field == "weights" else jnp.zeros((2, 3))
        np.testing.assert_array_equal(after, jnp.stack([fresh, before[0], before[1], before[3]]), field)
    assert averaged_weights(moved) is not None
    refused = optax.chain(ours(), optax.scale_by_amsgrad())
    with pytest.raises(
        ValueError, match="keeps an array by the slots of down/values under 'nu_max', which remap cannot"
    ):
        remap(refused.init(params), OLD_SLOTS)


@pytest.mark.parametrize(
    ("old_slots", "shards", "message"),
    [
        ({"up/values": jnp.array([0, 1, 2])}, 1, r"old_slots\[up/values\] has shape \(3,\): must be \(4,\)"),
        ({"up/values": jnp.array([0.0, 1, 2, 3])}, 1, r"old_slots\[up/values\] has dtype float32: must be integers"),
        ({"up/values": jnp.array([0, 1, 2, 4])}, 1, r"old_slots\[up/values\] names slot 4: must be -1 or a slot"),
        ({"up/values": jnp.array([0, -2, 2, 3])}, 1, r"old_slots\[up/values\] names slot -2: must be -1 or a slot"),
        ({"up/values": jnp.array([0, 2, 1, 3])}, 2, r"old_slots\[up/values\] names slot 2: must be -1 or a slot"),
        ({"up/values": jnp.array([0, 0, -1, -1])}, 1, r"old_slots\[up/values\] names a slot twice"),
        ({"up/values": jnp.array([0, 1, 2, 3])}, 3, "shards=3: must be a whole number that divides the 4 slots"),
        ({"up/values": jnp.array([0, 1, 2, 3])}, 0, "shards=0: must be a whole number that divides the 4 slots"),
        ({"up": jnp.array([0, 1, 2, 3])}, 1, "old_slots names up, which is no block-sparse leaf"),
    ],
)
def test_maps_that_cannot_be_are_refused(old_slots, shards, message):
    state = ours().init(draw(0))
    with pytest.raises(ValueError, match=f"^{message}"):
        remap(state, old_slots, shards)


def test_densities_that_cannot_be_are_refused():
    params = draw(0)
    for density in (0.0, -0.1, 25, 1.5, float("nan"), float("inf"), True, "half", None, jnp.ones(2)):
        with pytest.raises(ValueError, match=r"up/values.*(must be in \(0, 1\]|it names)"):
            scale_by_sparse_adam(DENSITIES | {"up": {"values": density}}).init(params)
    with pytest.raises(
        ValueError, match=r"^densities has no value for the parameter 'up/values'; it names bias, down/"
    ):
        scale_by_sparse_adam({**DENSITIES, "up": {"value": 0.5}}).init(params)
    with pytest.raises(ValueError, match=r"^densities has no value for the parameter ''; it names bias"):
        optax.flatten(ours()).init(params)
    with pytest.raises(ValueError, match=r"^two parameters have the path a/b"):
        scale_by_sparse_adam(1.0).init({"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)})


def test_numbers_are_held_against_the_ranges_of_configs():
    same = ("b1", "b2", "eps", "density_exponent", "ramp", "weight_decay", "clip")
    names = {"learning_rate": "lr"} | dict(zip(same, same, strict=True))
    for name, setting in names.items():
        low, high, low_legal, high_legal = RANGES[f"optim.{setting}"]
        given = [
            (low, low_legal),
            (high, high_legal),
            (low - 1, False),
            (float("nan"), False),
            ("1", False),
            (True, False),
        ]
        for value, legal in given:
            settings = {"learning_rate": 0.1, "densities": 1.0, name: value}
            if legal:
                sparse_adam(**settings)
                continue
            with pytest.raises(ValueError, match=f"^{name}=.*must be (in|of type)"):
                sparse_adam(**settings)
    with pytest.raises(ValueError, match=r"^rounding_seed=0.5: must be a whole number$"):
        sparse_adam(0.1, 1.0, rounding_seed=0.5)
