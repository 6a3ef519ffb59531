"""Which blocks go, by every rule, on a weight small enough to draw.

The unstructured weight is 4 x 4; `.` is an inactive place. Storage goes down the columns.

    0.1  -0.2   .    .
     .    0.5  -0.9  .
    0.3   .     .   -0.6
    0.2   .     .    .
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology import drop
from sparsejax.topology.blocks import BlockGrid, BlockSparse, from_dense, index_from_mask, to_dense
from sparsejax.topology.rewire import choose_drops

GRID = BlockGrid((4, 4), (1, 1))
WEIGHT = np.array(
    [[0.1, -0.2, 0, 0], [0, 0.5, -0.9, 0], [0.3, 0, 0, -0.6], [0.2, 0, 0, 0]],
    np.float32,
)
KEY = jax.random.key(0)


def gone(rule, count, grid=GRID, dense=WEIGHT, free=0, **changes):
    """The dropped weights, as a sorted list of their values."""
    settings = {"threshold": 0.0, "temperature": 1.0, "taylor_n": None, "key": KEY} | changes
    index = index_from_mask(dense != 0, grid, int((dense != 0).sum()) + free)
    weight = from_dense(jnp.asarray(dense), index, grid)
    score, allowed = drop.scored(rule, weight.values, index, grid, **settings, count=count)
    mask = choose_drops(index, grid, score, allowed, count, False)
    left = BlockSparse(jnp.where(mask[:, None, None], weight.values, 0.0), index, grid)
    dropped = np.asarray(to_dense(left))
    return sorted(round(float(value), 6) for value in dropped[dropped != 0])


@pytest.mark.parametrize("free", [0, 3])
@pytest.mark.parametrize(
    ("rule", "count", "expected"),
    [
        ("magnitude", 2, [0.1, 0.2]),  # 0.2 ties with -0.2; the lower place is (3, 0), before (0, 1)
        ("magnitude", 5, [-0.2, 0.1, 0.2, 0.3, 0.5]),
        ("inverse", 2, [-0.9, -0.6]),
        ("sign", 2, [-0.2, 0.1]),  # smallest positive, negative nearest to zero
        ("sign", 4, [-0.6, -0.2, 0.1, 0.2]),  # magnitude would have taken 0.3
        ("sign", 7, [-0.9, -0.6, -0.2, 0.1, 0.2, 0.3, 0.5]),  # the negatives are used up after three
    ],
)
def test_the_drawn_weight(rule, count, expected, free):
    assert gone(rule, count, free=free) == expected


def test_threshold_lets_go_what_is_small_and_no_more_than_asked():
    assert gone("threshold", 5, threshold=0.25) == [-0.2, 0.1, 0.2]
    assert gone("threshold", 1, threshold=0.25) == [0.1]
    assert gone("threshold", 5, threshold=0.05) == []
    assert gone("threshold", 5, threshold=0.3) == [-0.2, 0.1, 0.2, 0.3]


def test_threshold_of_a_block_is_its_mean():
    # Means of |w|: 0.05, 0.2, 0.4.
    grid = BlockGrid((2, 6), (2, 2))
    dense = np.repeat(np.array([[0.1, 0.0, -0.3, 0.1, 0.4, -0.4]] * 2, np.float32), 1, axis=0)
    index = index_from_mask(np.ones((1, 3), bool), grid, 3)
    values = from_dense(jnp.asarray(dense), index, grid).values
    for threshold, expected in ((0.04, [0, 0, 0]), (0.06, [1, 0, 0]), (0.21, [1, 1, 0]), (9.0, [1, 1, 1])):
        np.testing.assert_array_equal(drop.below_threshold(values, threshold), np.array(expected, bool))


def test_sign_of_a_block_is_that_of_its_sum():
    grid = BlockGrid((2, 8), (2, 2))
    sums = np.array([0.4, -0.1, -0.2, 0.3])
    dense = np.repeat(sums / 4, 2)[None].repeat(2, axis=0).astype(np.float32)
    dense[0, 0] += 0.5  # two weights that cancel do not matter
    dense[1, 0] -= 0.5
    index = index_from_mask(np.ones((1, 4), bool), grid, 4)
    values = from_dense(jnp.asarray(dense), index, grid).values
    np.testing.assert_array_equal(drop.sign(values, index, grid), [1, 0, 1, 0])


def test_sign_ranks_every_share_alone():
    grid = BlockGrid((1, 6), (1, 1), shards=2)
    dense = np.array([[0.3, -0.1, 0.2, 5.0, -7.0, -6.0]], np.float32)
    index = index_from_mask(dense != 0, grid, 6)
    values = from_dense(jnp.asarray(dense), index, grid).values
    np.testing.assert_array_equal(drop.sign(values, index, grid), [1, 0, 0, 0, 1, 0])


def test_taylor_is_the_squared_product():
    values = jnp.array([[[1.0, 2.0]], [[3.0, 0.0]], [[1.0, 1.0]]])
    gradients = jnp.array([[[2.0, 0.5]], [[0.1, 9.0]], [[0.0, 0.0]]])
    np.testing.assert_allclose(drop.taylor(values, gradients), [5.0, 0.09, 0.0], rtol=1e-6)


def test_taylor_keeps_blocks_whose_score_is_not_known():
    # In storage order 0.1, 0.3, 0.2, -0.2, 0.5, -0.9, -0.6.
    scores = jnp.array([1.0, jnp.nan, 3.0, 2.0, 5.0, 6.0, 7.0])
    assert gone("taylor", 2, taylor_n=scores) == [-0.2, 0.1]
    assert gone("taylor", 6, taylor_n=scores) == [-0.9, -0.6, -0.2, 0.1, 0.2, 0.5]


def test_soft_draws_in_proportion_to_magnitude_to_the_temperature():
    # One of two blocks goes: |w| 1 and 3, T = 2. Kept with odds 1 : 9, so the small one goes in 9 of 10 draws.
    grid = BlockGrid((1, 2), (1, 1))
    index = index_from_mask(np.ones((1, 2), bool), grid, 2)
    values = jnp.array([[[1.0]], [[-3.0]]])

    def small_goes(key):
        score = drop.soft(values, 2.0, key)
        return choose_drops(index, grid, score, jnp.ones(2, bool), 1, True)[0]

    share = float(jnp.mean(jax.jit(jax.vmap(small_goes))(jax.random.split(KEY, 4000))))
    assert share == pytest.approx(0.9, abs=0.02)


def test_soft_drops_zeros_first():
    for seed in range(5):
        score = drop.soft(jnp.array([[[1.0]], [[0.0]], [[1e-3]]]), 3.0, jax.random.key(seed))
        assert int(jnp.argmin(score)) == 1 and bool(jnp.isneginf(score[1]))


def test_one_ranking_of_all_weights():
    # Two kinds of two layers; the count of a layer changes, the total is exact, every share keeps its largest.
    values = {
        "a": jnp.array([[1.0, 0.1, 0.2, 9.0], [5.0, 6.0, 7.0, 8.0]])[..., None, None],
        "b": jnp.array([[0.3, 0.01], [0.02, 4.0]])[..., None, None],
    }
    active = {"a": jnp.array([[True, True, True, False], [True] * 4]), "b": jnp.ones((2, 2), bool)}
    masks = drop.choose_globally(values, active, {"a": 1, "b": 1}, jnp.int32(4))
    # Smallest: b[0][1], b[1][0], a[0][1], a[0][2]; the free slot of a never goes.
    np.testing.assert_array_equal(masks["a"], [[0, 1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(masks["b"], [[0, 1], [1, 0]])
    masks = drop.choose_globally(values, active, {"a": 2, "b": 1}, jnp.int32(11))
    # Seven may go: all but the largest of each of the six shares.
    assert int(masks["a"].sum() + masks["b"].sum()) == 11 - 6


def test_one_scale_for_all_weights():
    # Blocks of four elements are summed as integers: on its own scale the small weight would look large.
    values = {"a": jnp.full((1, 2, 2, 2), 1.0), "b": jnp.full((1, 2, 2, 2), 1e-3)}
    active = {name: jnp.ones((1, 2), bool) for name in values}
    masks = drop.choose_globally(values, active, {"a": 1, "b": 1}, jnp.int32(1))
    assert not masks["a"].any() and masks["b"].sum() == 1


def test_unknown_rules_and_missing_scores_are_refused():
    for rule in ("magnitud", "taylor", "global_magnitude"):
        with pytest.raises(ValueError, match=f"^drop='{rule}': unknown drop rule, or its scores are missing$"):
            gone(rule, 1)
