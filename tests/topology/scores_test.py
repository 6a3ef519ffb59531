"""Drop and growth scores, and the choice of the lowest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology import scores, selection
from sparsejax.topology.blocks import BlockGrid, coordinates, index_from_mask, positions_of
from sparsejax.topology.keys import weight_key

magnitude = jax.jit(scores.magnitude)
random = jax.jit(scores.random, static_argnums=1)
lowest = jax.jit(selection.lowest)


def test_magnitude_worked_example():
    # Two blocks of (1, 2). The largest |w| is 6, the power of two below it 4, which becomes 2**23; so 1 is 2**21.
    #   [ 1 -2]  ->  2**21 + 2**22        [ 0  6]  ->  6 * 2**21
    score = magnitude(jnp.array([[[1.0, -2.0]], [[0.0, 6.0]]]))
    assert score.dtype == jnp.int32
    assert score.tolist() == [3 * 2**21, 6 * 2**21]


@pytest.mark.parametrize("peak", [1.0, 1.9999999, 3.7, 2.0**-20])
def test_a_full_block_of_the_largest_value_does_not_overflow(peak):
    # 256 x 256 elements have 31 - 16 = 15 bits each: 65536 * (2**15 - 1) is just below 2**31.
    values = jnp.stack([jnp.full((256, 256), -peak), jnp.full((256, 256), peak / 100)])
    full, small = magnitude(values).tolist()
    assert 65536 * 2**14 <= full <= 65536 * (2**15 - 1) < 2**31
    assert 0 < small < full / 50


@pytest.mark.parametrize("block", [(1, 4), (4, 4), (16, 32)])
def test_magnitude_does_not_depend_on_the_order_of_the_sum(block):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, *block)).astype(np.float32)
    score = magnitude(values)
    shuffled = rng.permuted(values.reshape(12, -1), axis=1).reshape(values.shape)
    np.testing.assert_array_equal(magnitude(shuffled), score)
    np.testing.assert_array_equal(magnitude(-values), score)
    # Blocks visited in another order keep their scores: the scale is that of the whole weight.
    np.testing.assert_array_equal(magnitude(values[::-1]), score[::-1])


@pytest.mark.parametrize(("block", "bits"), [((1, 2), 24), ((8, 16), 24), ((16, 16), 23), ((3, 100), 22)])
def test_magnitude_is_a_sum_of_exact_integers(block, bits):
    # Python integers, element by element: scaling by powers of two is exact, so every platform must find these.
    values = np.random.default_rng(1).normal(size=(6, *block)).astype(np.float32)
    power = 2.0 ** np.floor(np.log2(np.abs(values).max()))
    integers = np.vectorize(round)(np.abs(values.astype(np.float64)) / power * 2.0 ** (bits - 1))
    np.testing.assert_array_equal(magnitude(values), np.minimum(integers, 2**bits - 1).sum((1, 2)))


@pytest.mark.parametrize("block", [(1, 1), (1, 4), (8, 8), (32, 32)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_magnitude_ranks_like_float64(block, dtype):
    values = jnp.asarray(np.random.default_rng(2).normal(size=(300, *block)), dtype)
    exact = np.abs(np.asarray(values, np.float64)).sum((1, 2))
    score = np.asarray(magnitude(values)).astype(np.int64)
    order = np.argsort(exact, kind="stable")
    gap = np.diff(exact[order])
    assert np.all(np.diff(score[order])[gap > 1e-6 * exact.max()] > 0)
    if block == (1, 1):  # no rounding at all: equal exactly where |w| is equal
        np.testing.assert_array_equal(np.diff(score[order]) > 0, gap > 0)


def test_single_elements_are_ordered_by_their_bits():
    # From zero over the smallest normal number to the largest; the sign does not count.
    values = np.array([0.0, -0.0, 1.2e-38, -1e-20, 0.5, -0.50000006, 3e38], np.float32)
    score = magnitude(values.reshape(-1, 1, 1)).tolist()
    assert score[0] == score[1] == 0
    assert score[1:] == sorted(set(score[1:]))
    assert score == np.abs(values).view(np.int32).tolist()


@pytest.mark.parametrize("block", [(1, 1), (2, 2)])
@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-40, 3e38])
def test_zero_tiny_and_huge_weights_give_usable_scores(block, value):
    score = np.asarray(magnitude(jnp.full((3, *block), value, jnp.float32)))
    assert np.all(score >= 0)
    assert len(set(score.tolist())) == 1


def test_lowest_worked_example():
    #            index   0  1  2  3  4  5        ties of 1 at 1, 3 and 5; index 3 is not allowed
    score = jnp.array([2, 1, 9, 1, 0, 1])
    allowed = jnp.array([True, True, True, False, True, True])
    chosen = [np.flatnonzero(lowest(score, allowed, count)).tolist() for count in range(8)]
    assert chosen == [[], [4], [1, 4], [1, 4, 5], [0, 1, 4, 5], *[[0, 1, 2, 4, 5]] * 3]
    assert lowest(score.astype(float), allowed, 2).tolist() == lowest(score, allowed, 2).tolist()


def test_random_scores_differ_by_share_and_repeat_by_key():
    grid = BlockGrid((64, 64), (2, 2), 4, "rows")
    key = weight_key(0, 100, "attention.o", 1)
    score = np.asarray(random(key, grid))
    assert score.shape == (4, 256) and score.dtype == np.int32
    assert score.min() >= 0
    assert len(np.unique(score)) > 1000  # 1024 draws of 31 bits
    np.testing.assert_array_equal(random(key, grid), score)
    assert not np.array_equal(random(weight_key(0, 200, "attention.o", 1), grid), score)
    # The mean of 1024 uniform draws is within 5 standard errors of the middle.
    assert abs(score.mean() / 2**31 - 0.5) < 5 / np.sqrt(12 * 1024)


def test_random_scores_do_not_depend_on_stacking():
    grid = BlockGrid((16, 16), (2, 2), 2)
    layers = jnp.arange(3)
    stacked = jax.vmap(lambda layer: scores.random(weight_key(7, 5, "mlp.gate", layer), grid))(layers)
    for layer in range(3):
        np.testing.assert_array_equal(stacked[layer], random(weight_key(7, 5, "mlp.gate", layer), grid))


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_by_share_follows_the_order_of_positions(axis):
    grid = BlockGrid((8, 16), (2, 2), 2, axis)
    score_RC = np.arange(grid.cells).reshape(grid.rows, grid.columns)
    everywhere = index_from_mask(np.ones((grid.rows, grid.columns), bool), grid, grid.cells)
    rows, cols = coordinates(everywhere, grid)
    expected = score_RC[np.asarray(rows), np.asarray(cols)].reshape(2, -1)
    assert positions_of(everywhere, grid).tolist() == [list(range(grid.cells_per_share))] * 2
    np.testing.assert_array_equal(scores.by_share(jnp.asarray(score_RC), grid), expected)
