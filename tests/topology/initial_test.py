"""The topology a run starts from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology import initial, scores
from sparsejax.topology.blocks import BlockGrid, from_dense, positions_of, to_dense, validate
from sparsejax.topology.keys import weight_key
from sparsejax.topology.stats import activity

random_index = jax.jit(initial.random_index, static_argnames=("grid", "count", "capacity"))
KEY = weight_key(0, 0, "attention.q", 0)

CASES = [
    (BlockGrid((8, 16), (1, 1), 1), 40, 40),
    (BlockGrid((8, 16), (1, 1), 2, "rows"), 30, 36),
    (BlockGrid((16, 64), (2, 8), 4, "columns"), 20, 28),
    (BlockGrid((16, 64), (2, 8), 2, "columns", "column"), 26, 26),
    (BlockGrid((32, 16), (4, 4), 2, "rows", "column"), 14, 14),
    (BlockGrid((8, 8), (4, 4), 1), 4, 4),
]


@pytest.mark.parametrize(("grid", "count", "capacity"), CASES)
def test_counts_are_exact_per_share_and_per_balanced_column(grid, count, capacity):
    index = random_index(KEY, grid=grid, count=count, capacity=capacity)
    validate(from_dense(jnp.ones(grid.shape), index, grid))
    position_Sc = np.asarray(positions_of(index, grid))
    assert position_Sc.shape == (grid.shards, capacity // grid.shards)
    assert (position_Sc < grid.cells_per_share).sum(axis=1).tolist() == [count // grid.shards] * grid.shards
    if grid.balance == "column":
        for share in position_Sc:
            columns = np.bincount(share // grid.share_rows, minlength=grid.share_columns)
            assert columns.tolist() == grid.column_counts(count // grid.shards).tolist()


def test_every_place_is_as_likely_as_any_other():
    # 400 topologies of 4 of 16 places: each place is active in 100, standard deviation 8.7.
    grid = BlockGrid((4, 4), (1, 1))
    keys = jax.vmap(lambda layer: weight_key(0, 0, "mlp.up", layer))(jnp.arange(400))
    draw = jax.jit(jax.vmap(lambda key: activity(initial.random_index(key, grid, 4, 4), grid)))
    seen = draw(keys).sum(axis=0)
    assert seen.sum() == 1600
    assert np.all(np.abs(np.asarray(seen) - 100) < 45)


def test_equal_keys_give_equal_topologies_and_others_do_not():
    grid = BlockGrid((16, 64), (2, 8), 4, "columns")
    first = random_index(KEY, grid=grid, count=20, capacity=28)
    again = random_index(weight_key(0, 0, "attention.q", 0), grid=grid, count=20, capacity=28)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = random_index(weight_key(1, 0, "attention.q", 0), grid=grid, count=20, capacity=28)
    assert not np.array_equal(first.cols, other.cols)
    position_Sc = positions_of(first, grid).tolist()
    assert position_Sc[0] != position_Sc[1]


def test_positions_from_mask_worked_example():
    # places    0 1 2 3        capacity 3: two blocks and a free slot, one block and two free slots
    mask = jnp.array([[False, True, False, True], [True, False, False, False]])
    assert initial.positions_from_mask(mask, 3).tolist() == [[1, 3, 4], [0, 4, 4]]


@pytest.mark.parametrize(
    ("balance", "count", "capacity", "message"),
    [
        ("none", 3, 4, "count=3, capacity=4: both must be multiples of shards=2"),
        ("none", 4, 5, "count=4, capacity=5: both must be multiples of shards=2"),
        ("none", 0, 4, "count=0: must be between 2 and 16, and at most 4"),
        ("none", 18, 18, "count=18: must be between 2 and 16, and at most 18"),
        ("none", 6, 4, "count=6: must be between 2 and 16, and at most 4"),
        ("column", 4, 6, "capacity=6: balance='column' has no free slots, capacity must be 4"),
    ],
)
def test_impossible_counts_are_one_line(balance, count, capacity, message):
    with pytest.raises(ValueError, match=message):
        initial.random_index(KEY, BlockGrid((8, 8), (2, 2), 2, "columns", balance), count, capacity)


# By blocks of 2 x 2 the magnitudes of this matrix are 6, 1 / 4, 10.5.
DENSE = jnp.array([[1.0, -2, 0, 0], [3, 0, 0, 1], [0, 0, 5, -5], [2, 2, 0, 0.5]])


@pytest.mark.parametrize(
    ("count", "norms", "kept"),
    [
        (1, None, [[0, 0], [0, 1]]),
        (2, None, [[1, 0], [0, 1]]),
        (3, None, [[1, 0], [1, 1]]),
        # With inputs of norm 1, 4, 0.1, 1 they are 15, 4 / 4, 1.5: the second wins by one large input.
        (2, [1.0, 4.0, 0.1, 1.0], [[1, 0], [1, 0]]),
        (3, [1.0, 4.0, 0.2, 1.0], [[1, 1], [1, 0]]),
    ],
)
def test_the_best_blocks_of_a_dense_weight_worked_example(count, norms, kept):
    grid = BlockGrid((4, 4), (2, 2))
    score_Sm = scores.of_dense(DENSE, grid, None if norms is None else jnp.array(norms))
    index = initial.best_index(score_Sm, grid, count, count)
    weight = from_dense(DENSE, index, grid)
    validate(weight)
    np.testing.assert_array_equal(to_dense(weight), DENSE * np.kron(kept, np.ones((2, 2))))


@pytest.mark.parametrize(("grid", "count", "capacity"), CASES)
def test_the_best_are_those_with_the_largest_sums_in_exact_counts(grid, count, capacity):
    """Against NumPy in float64, share by share, or column by column where they are balanced."""
    dense = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    norms = np.random.default_rng(1).lognormal(sigma=3, size=grid.shape[0]).astype(np.float32)
    (bk, bn) = grid.block
    sums_RC = (np.abs(dense) * norms[:, None]).reshape(grid.rows, bk, grid.columns, bn).sum((1, 3), dtype=np.float64)
    index = initial.best_index(scores.of_dense(jnp.array(dense), grid, jnp.array(norms)), grid, count, capacity)
    validate(from_dense(jnp.array(dense), index, grid))
    chosen_RC = np.asarray(activity(index, grid)).reshape(grid.rows, grid.columns).astype(bool)
    axis = 0 if grid.shard_axis == "rows" else 1
    for sums, chosen in zip(*(np.split(each, grid.shards, axis) for each in (sums_RC, chosen_RC)), strict=True):
        groups = zip(sums.T, chosen.T, strict=True) if grid.balance == "column" else [(sums, chosen)]
        for each, taken in groups:
            assert not taken.any() or taken.all() or each[taken].min() > each[~taken].max()
        assert chosen.sum() == count // grid.shards


def test_scores_of_equal_blocks_go_to_the_lower_place_and_huge_ones_keep_their_order():
    grid = BlockGrid((4, 4), (2, 2))
    index = initial.best_index(scores.of_dense(jnp.ones((4, 4)), grid), grid, 2, 2)
    assert positions_of(index, grid).tolist() == [[0, 1]]
    huge = jnp.array([[1e38, 1e30, 1e-30, 1e-38]])
    assert np.argsort(scores.of_dense(huge, BlockGrid((1, 4), (1, 1)))[0]).tolist() == [3, 2, 1, 0]


def test_scores_of_another_weight_are_refused():
    with pytest.raises(ValueError, match=r"scores of shape \(1, 4\): must be \(2, 2\)"):
        initial.best_index(jnp.zeros((1, 4), jnp.int32), BlockGrid((4, 4), (2, 2), 2), 2, 2)
