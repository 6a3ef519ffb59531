import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology.nm import nm_mask


def test_the_largest_two_of_four_along_the_inputs():
    # One output, two groups of four inputs. Signs do not count; ties go to the lower input.
    weight = jnp.array([[0.1], [-3.0], [2.0], [1.0], [5.0], [-5.0], [5.0], [0.0]])
    np.testing.assert_array_equal(nm_mask(weight, 2, 4)[:, 0], [0, 1, 1, 0, 1, 1, 0, 0])
    # 1:8 over both groups, 3:4, and the two ends.
    np.testing.assert_array_equal(nm_mask(weight, 1, 8)[:, 0], [0, 0, 0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(nm_mask(weight, 3, 4)[:, 0], [0, 1, 1, 1, 1, 1, 1, 0])
    assert nm_mask(weight, 4, 4).all() and not nm_mask(weight, 0, 4).any()


def test_outputs_and_layers_are_masked_apart():
    weight = jax.random.normal(jax.random.key(0), (3, 8, 5))
    mask = nm_mask(weight, 2, 4)
    for layer in range(3):
        for output in range(5):
            alone = nm_mask(weight[layer, :, output : output + 1], 2, 4)[:, 0]
            np.testing.assert_array_equal(mask[layer, :, output], alone)


@pytest.mark.parametrize("used, group", [(1, 2), (1, 4), (3, 8), (5, 16)])
def test_every_group_uses_exactly_n_and_none_left_out_is_larger(used, group):
    # Small integers make many ties; infinities and NaN are values like others.
    draw = np.random.default_rng(0)
    weight = draw.integers(-2, 3, (32, 12)).astype(np.float32)
    weight[0, 0], weight[1, 1], weight[2, :] = np.inf, np.nan, -0.0
    mask = np.asarray(jax.jit(nm_mask, static_argnums=2)(weight, jnp.int32(used), group)).reshape(-1, group, 12)
    assert np.all(mask.sum(axis=1) == used)
    size = np.abs(np.nan_to_num(weight, nan=np.inf, posinf=9.0)).reshape(mask.shape)
    lowest_used = np.where(mask, size, np.inf).min(axis=1)
    assert np.all(np.where(mask, -np.inf, size).max(axis=1) <= lowest_used)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not divide the 6 inputs"):
        nm_mask(jnp.zeros((6, 2)), 2, 4)
    with pytest.raises(TypeError, match="float32"):
        nm_mask(jnp.zeros((4, 2), jnp.bfloat16), 2, 4)
