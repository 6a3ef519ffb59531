"""The average of the weights: its equation by hand, rewirings, plain Optax use, storage."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.optim.build import sparse_adam
from sparsejax.optim.sparse_adam import remap
from sparsejax.optim.weight_average import average_weights, averaged_weights


def test_three_updates_by_hand_with_a_rewiring_before_the_third():
    # b = 0.5, so the newest weights have share 1, 2/3, 4/7. Four blocks of one number:
    #   slot              0      1      2      3
    #   w_0               1      2      3      4       no part in the average
    #   w_1               2      4      6      8       a_1 = w_1
    #   w_2               5      1      0      2       a_2 = w_1 / 3 + 2 w_2 / 3 = 4  2  2  4
    #   rewire            b     new     a      c       d is gone; the new block starts at 7
    #   a_2 moved         2      7      4      2
    #   w_3               9      0     -3      2       a_3 = 3 a_2 / 7 + 4 w_3 / 7 = 6  3  0  2
    tx = average_weights(0.5)
    chain = optax.chain(sparse_adam(1.0, {"w": 0.25}), tx)
    params = {"w": jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1)}

    def go(state, params, to):
        step = {"w": jnp.array(to).reshape(4, 1, 1) - params["w"]}
        updates, state = tx.update(step, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    params, state = go(state, params, [2.0, 4.0, 6.0, 8.0])
    np.testing.assert_allclose(state.weights["w"].reshape(-1), [2, 4, 6, 8], rtol=1e-6)
    params, state = go(state, params, [5.0, 1.0, 0.0, 2.0])
    np.testing.assert_allclose(state.weights["w"].reshape(-1), [4, 2, 2, 4], rtol=1e-6)

    rewired = {"w": jnp.array([1.0, 7.0, 5.0, 0.0]).reshape(4, 1, 1)}
    adam = chain.init(params)[0]
    _, state = remap((adam, state), {"w": jnp.array([1, -1, 0, 2], jnp.int32)}, params=rewired)
    np.testing.assert_allclose(state.weights["w"].reshape(-1), [2, 7, 4, 2], rtol=1e-6)
    _, state = go(state, rewired, [9.0, 0.0, -3.0, 2.0])
    np.testing.assert_allclose(state.weights["w"].reshape(-1), [6, 3, 0, 2], atol=2e-6)
    assert int(state.count) == 3


@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_it_is_the_weighted_mean_of_all_weights_but_the_first(decay):
    weights = np.random.default_rng(0).normal(size=(50, 3))
    tx = average_weights(decay)
    params = {"w": jnp.full(3, 1e3)}
    state = tx.init(params)
    np.testing.assert_array_equal(state.weights["w"], params["w"])
    for row in weights:
        updates, state = tx.update({"w": jnp.asarray(row, jnp.float32) - params["w"]}, state, params)
        params = optax.apply_updates(params, updates)
    share = decay ** np.arange(49, -1, -1.0)
    np.testing.assert_allclose(state.weights["w"], share @ weights / share.sum(), atol=3e-4)


def test_step_size_is_what_the_caller_multiplies_the_updates_by():
    tx = average_weights(0.5)
    params = {"w": jnp.array([1.0])}
    updates, state = tx.update({"w": jnp.array([2.0])}, tx.init(params), params, step_size=-0.25)
    assert float(updates["w"][0]) == 2.0
    assert float(state.weights["w"][0]) == 0.5


def test_a_chain_moves_named_leaves_layer_by_layer_and_share_by_share():
    params = {"a": jnp.arange(24.0).reshape(2, 4, 3, 1), "b": jnp.arange(4.0)}
    tx = optax.chain(sparse_adam(1e-2, {"a": 0.5, "b": 1.0}), average_weights(0.9))
    state = tx.init(params)
    new = {"a": params["a"] + 100, "b": params["b"]}
    old_slot = jnp.array([[1, 0, -1, 3], [-1, 1, 3, 2]], jnp.int32)
    move = jax.jit(functools.partial(remap, shards=2))
    found = averaged_weights(move(state, {"a": old_slot}, params=new))
    before = averaged_weights(state)
    for layer in range(2):
        for slot in range(4):
            old = int(old_slot[layer, slot])
            wanted = new["a"][layer, slot] if old < 0 else before["a"][layer, old]
            np.testing.assert_array_equal(found["a"][layer, slot], wanted)
    np.testing.assert_array_equal(found["b"], before["b"])


def test_dtypes_and_a_start_that_may_be_donated():
    params = {"w": jnp.ones((2, 2), jnp.bfloat16), "v": jnp.ones(3)}
    tx = average_weights(0.9)
    state = tx.init(params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.weights)} == {"float32"}
    assert state.weights["v"].unsafe_buffer_pointer() != params["v"].unsafe_buffer_pointer()
    _, state = tx.update(params, state, params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.weights)} == {"float32"}


def test_errors_are_one_line():
    for decay in (0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match=r"^decay=.*: must be in \(0, 1\)$"):
            average_weights(decay)
    params = {"w": jnp.zeros((2, 2, 2))}
    tx = average_weights(0.5)
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"^average_weights: update needs the parameters$"):
        tx.update(params, state)
    adam = sparse_adam(1e-3, {"w": 0.5}).init(params)
    with pytest.raises(ValueError, match=r"^the optimizer state keeps an average .*: remap needs the new parameters$"):
        remap((adam, state), {"w": jnp.array([0, 1], jnp.int32)})
    with pytest.raises(ValueError, match=r"^the optimizer state contains 2 averages of the weights instead of one$"):
        averaged_weights((state, state))
    assert averaged_weights(adam) is None
