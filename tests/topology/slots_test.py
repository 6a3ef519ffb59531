"""Per-slot arrays follow their blocks through a rewiring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology.slots import gather_slots


def test_worked_example():
    # slot        0   1   2   3            slot        0   1   2   3
    # before     a=1 b=2 c=3 d=4   ->      after       b  new  a   c      (d was dropped, "new" regrown)
    before = jnp.array([1.0, 2.0, 3.0, 4.0])
    old_slot = jnp.array([1, -1, 0, 2], jnp.int32)
    np.testing.assert_array_equal(gather_slots(before, old_slot), [2.0, 0.0, 1.0, 3.0])
    np.testing.assert_array_equal(gather_slots(before, old_slot, fill=9), [2.0, 9.0, 1.0, 3.0])


def test_blocks_and_layers_follow_their_own_map():
    before_LnKN = jnp.arange(2 * 3 * 2 * 2, dtype=jnp.float32).reshape(2, 3, 2, 2) + 1
    old_slot_Ln = jnp.array([[2, -1, 0], [-1, -1, 1]], jnp.int32)
    after = np.asarray(jax.jit(gather_slots)(before_LnKN, old_slot_Ln))
    for layer in range(2):
        for slot in range(3):
            old = int(old_slot_Ln[layer, slot])
            expected = np.zeros((2, 2)) if old < 0 else before_LnKN[layer, old]
            np.testing.assert_array_equal(after[layer, slot], expected)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bfloat16, jnp.float32])
def test_dtype_is_kept_and_the_identity_changes_nothing(dtype):
    before = jnp.arange(6).astype(dtype).reshape(3, 2)
    after = gather_slots(before, jnp.arange(3, dtype=jnp.int32))
    assert after.dtype == dtype
    np.testing.assert_array_equal(after, before)


def test_a_map_of_another_shape_is_one_line():
    with pytest.raises(ValueError, match=r"^old_slot of shape \(2,\) does not lead an array of shape \(3, 2, 2\)$"):
        gather_slots(jnp.zeros((3, 2, 2)), jnp.zeros((2,), jnp.int32))
