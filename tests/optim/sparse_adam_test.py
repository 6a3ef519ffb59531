"""The transformation around the update rule: state, ages, rewiring, storage, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.optim.build import sparse_adam
from sparsejax.optim.sparse_adam import remap, scale_by_sparse_adam, sparse_adam_state


def advance(tx, state, params, updates: int, gradient=None):
    gradient = jax.tree.map(jnp.ones_like, params) if gradient is None else gradient
    update = jax.jit(tx.update)
    for _ in range(updates):
        direction, state = update(gradient, state, params)
    return direction, state


def test_worked_example():
    # four blocks of one number, gradients 1 2 3 4, ramp 10
    #   slot       0    1    2    3
    #   block      a    b    c    d      three updates: every age 3
    #   rewire     b   new   a    c      d was dropped
    #   ages       3    0    3    3      -> next update: 4  1  4  4, count 4: only slot 1 is regrown
    params = {"w": jnp.zeros((4, 1, 1))}
    gradient = {"w": jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1)}
    tx = scale_by_sparse_adam({"w": 0.25}, ramp=10)
    _, state = advance(tx, tx.init(params), params, 3, gradient)
    np.testing.assert_array_equal(state.ages["w"], [3, 3, 3, 3])

    moved = remap(state, {"w": jnp.array([1, -1, 0, 2], jnp.int32)})
    np.testing.assert_array_equal(moved.ages["w"], [3, 0, 3, 3])
    np.testing.assert_allclose(moved.mu["w"].reshape(-1), (1 - 0.9**3) * np.array([2, 0, 1, 3]), rtol=1e-5)
    np.testing.assert_allclose(moved.nu["w"].reshape(-1), (1 - 0.999**3) * np.array([4, 0, 1, 9]), rtol=1e-4)

    gradient = {"w": jnp.array([2.0, 7.0, 1.0, 3.0]).reshape(4, 1, 1)}
    direction, state = tx.update(gradient, moved, params)
    np.testing.assert_array_equal(state.ages["w"], [4, 1, 4, 4])
    assert int(state.count) == 4
    np.testing.assert_allclose(direction["w"].reshape(-1), 2 * np.array([1, 0.1, 1, 1]), rtol=1e-5)  # 2 = 0.25^-0.5


def test_only_sparse_leaves_have_ages_one_for_each_block():
    params = {
        "layers": {"q": {"values": jnp.zeros((2, 5, 4, 3))}, "k": {"kernel": jnp.zeros((2, 8, 8))}},
        "head": [jnp.zeros((7, 2, 2)), jnp.zeros(())],
    }
    densities = {"layers": {"q": {"values": 0.5}, "k": {"kernel": 1.0}}, "head": [0.1, 1.0]}
    state = scale_by_sparse_adam(densities).init(params)
    shapes = {path: (age.shape, age.dtype.name) for path, age in state.ages.items()}
    assert shapes == {"layers/q/values": ((2, 5), "int32"), "head/0": ((7,), "int32")}
    assert jax.tree.map(jnp.shape, state.mu) == jax.tree.map(jnp.shape, params)


def test_leaves_without_blocks_take_the_scale_of_their_density_and_no_ages():
    params = {"kernel": jnp.zeros((2, 8, 8)), "values": jnp.zeros((3, 2, 2))}
    tx = scale_by_sparse_adam({"kernel": 0.25, "values": 0.25}, without_blocks=["kernel"])
    direction, state = advance(tx, tx.init(params), params, 2)
    assert list(state.ages) == ["values"]
    jax.tree.map(lambda leaf: np.testing.assert_allclose(leaf, jnp.full(leaf.shape, 2.0), rtol=1e-5), direction)


def test_remap_inside_a_chain_moves_only_named_leaves():
    params = {"a": jnp.ones((2, 3, 2, 2)), "b": jnp.ones((3, 2, 2)), "c": jnp.ones(4)}
    tx = sparse_adam(1e-2, {"a": 0.5, "b": 0.5, "c": 1.0}, clip=1.0, weight_decay=0.1)
    gradient = jax.tree.map(lambda p: jax.random.normal(jax.random.key(0), p.shape), params)
    _, before = advance(tx, tx.init(params), params, 2, gradient)
    after = jax.jit(remap)(before, {"a": jnp.array([[2, -1, 0], [0, 1, -1]], jnp.int32)})
    old, new = sparse_adam_state(before), sparse_adam_state(after)
    np.testing.assert_array_equal(new.ages["a"], [[2, 0, 2], [2, 2, 0]])
    for moments, kept in ((new.mu, old.mu), (new.nu, old.nu)):
        np.testing.assert_array_equal(
            moments["a"][0], jnp.stack([kept["a"][0, 2], 0 * kept["a"][0, 0], kept["a"][0, 0]])
        )
        np.testing.assert_array_equal(moments["a"][1], kept["a"][1].at[2].set(0))
        np.testing.assert_array_equal(moments["b"], kept["b"])
        np.testing.assert_array_equal(moments["c"], kept["c"])
    np.testing.assert_array_equal(new.ages["b"], old.ages["b"])
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(lambda leaf: leaf.dtype, before)


def test_stacked_layers_are_separate_weights():
    values = jax.random.normal(jax.random.key(0), (2, 4, 2, 3))
    old_slot = jnp.array([[3, -1, 0, 1], [-1, -1, 2, 3]], jnp.int32)
    tx = scale_by_sparse_adam({"w": 0.5}, ramp=4)

    def two_updates_around_a_rewiring(values, old_slot):
        state = tx.init({"w": values})
        _, state = advance(tx, state, {"w": values}, 3, {"w": values})
        return advance(tx, remap(state, {"w": old_slot}), {"w": values}, 2, {"w": values})[0]["w"]

    stacked = two_updates_around_a_rewiring(values, old_slot)
    for layer in range(2):
        alone = two_updates_around_a_rewiring(values[layer], old_slot[layer])
        np.testing.assert_allclose(stacked[layer], alone, rtol=1e-6)


def test_each_leaf_has_the_scale_of_its_own_density():
    params = {name: jnp.ones((2, 1, 1)) for name in ("eighth", "half", "one")}
    tx = scale_by_sparse_adam({"eighth": 0.125, "half": 0.5, "one": 1.0})
    direction, _ = advance(tx, tx.init(params), params, 1)
    for name, density in (("eighth", 0.125), ("half", 0.5), ("one", 1.0)):
        np.testing.assert_allclose(direction[name], np.full((2, 1, 1), density**-0.5), rtol=1e-5)


def test_bfloat16_second_moment_keeps_growing():
    params = {"w": jnp.zeros((8, 4, 8), jnp.float32)}
    tx = scale_by_sparse_adam({"w": 0.5}, moment_dtype="bfloat16")
    gradient = jax.tree.map(jnp.ones_like, params)
    state, _ = jax.lax.scan(lambda s, _: (tx.update(gradient, s)[1], None), tx.init(params), length=3000)
    assert state.nu["w"].dtype == jnp.bfloat16
    assert float(state.nu["w"].astype(jnp.float32).mean()) == pytest.approx(1 - 0.999**3000, abs=0.01)  # 0.95

    def rounded_to_nearest(v, _):
        v = (v.astype(jnp.float32) * 0.999).astype(jnp.bfloat16)
        return (v.astype(jnp.float32) + 0.001).astype(jnp.bfloat16), None

    stalled, _ = jax.lax.scan(rounded_to_nearest, jnp.zeros((), jnp.bfloat16), length=3000)
    assert float(stalled) == 0.5


def test_rounding_differs_by_leaf_and_moment_and_repeats_by_seed():
    params = {"a": jnp.zeros((4, 8, 8)), "b": jnp.zeros((4, 8, 8))}

    def moments(seed: int):  # both moments are 0.1 after one update, which bfloat16 does not hold
        tx = scale_by_sparse_adam({"a": 0.5, "b": 0.5}, b1=0.9, b2=0.9, moment_dtype="bfloat16", rounding_seed=seed)
        return advance(tx, tx.init(params), params, 1)[1]

    first, again, other = moments(0), moments(0), moments(1)
    assert all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), first, again)))
    assert bool(jnp.any(first.mu["a"] != other.mu["a"]))
    assert bool(jnp.any(first.mu["a"] != first.mu["b"]))
    assert bool(jnp.any(first.mu["a"] != first.nu["a"]))


def test_dtypes():
    params = {"w": jnp.zeros((2, 2, 2), jnp.bfloat16)}
    tx = scale_by_sparse_adam({"w": 0.5})
    direction, state = advance(tx, tx.init(params), params, 1)
    assert (direction["w"].dtype, state.mu["w"].dtype, state.count.dtype) == (jnp.float32, jnp.float32, jnp.int32)
    with jax.enable_x64(True):
        params = {"w": jnp.zeros((2, 2, 2), jnp.float64)}
        direction, state = advance(tx, tx.init(params), params, 1)
        dtypes = (direction["w"].dtype, state.nu["w"].dtype, state.ages["w"].dtype, state.count.dtype)
        assert dtypes == (jnp.float64, jnp.float64, jnp.int32, jnp.int32)


@pytest.mark.parametrize("form", ["smet", "naive", "smet_code"])
def test_a_donated_update_needs_no_second_copy(form):
    params = {"w": jnp.ones((64, 32, 32)), "norm": jnp.ones(32)}
    tx = sparse_adam(1e-3, {"w": 0.25, "norm": 1.0}, form=form, clip=1.0, weight_decay=0.1)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    gradient, state = jax.tree.map(jnp.ones_like, params), tx.init(params)
    memory = step.lower(params, state, gradient).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.1 * params["w"].nbytes
    old = jax.tree.leaves((params, state))
    params, state = step(params, state, gradient)
    assert all(buffer.is_deleted() for buffer in old)
    np.testing.assert_allclose(
        params["norm"], np.full(32, 1 - 1e-3 * (0.01 if form == "smet_code" else 1.1)), rtol=1e-5
    )


def test_errors_are_one_line():
    params = {"w": jnp.zeros((2, 2, 2)), "norm": jnp.zeros(2)}
    with pytest.raises(ValueError, match=r"^norm has shape \(2,\): at density 0.5 it must be \[..., n, bk, bn\]$"):
        scale_by_sparse_adam({"w": 0.5, "norm": 0.5}).init(params)
    with pytest.raises(ValueError, match=r"^the density of w is 0.0: must be in \(0, 1\]$"):
        scale_by_sparse_adam({"w": 0.0, "norm": 1.0}).init(params)
    with pytest.raises(ValueError, match=r"^moment_dtype='float16': not one of float32, bfloat16$"):
        scale_by_sparse_adam({}, moment_dtype="float16")
    state = scale_by_sparse_adam({"w": 0.5, "norm": 1.0}).init(params)
    slots = jnp.array([0, 1], jnp.int32)
    with pytest.raises(ValueError, match=r"^the optimizer state contains 2 SparseAdamState instead of one$"):
        sparse_adam_state((state, state))
    with pytest.raises(ValueError, match=r"^the optimizer state contains 0 SparseAdamState instead of one$"):
        remap(optax.adam(1e-3).init(params), {"w": slots})
