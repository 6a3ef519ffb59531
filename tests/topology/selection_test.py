"""The lowest entries without a sort, against a stable sort in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology import drop
from sparsejax.topology.blocks import BlockGrid, index_from_mask
from sparsejax.topology.rewire import choose_drops
from sparsejax.topology.selection import counts_up_to, lowest, order_keys, places_of

SIZE = 257
SPECIAL = np.array([0.0, -0.0, 1e-30, -1e-30, 1.0, -1.0, 3e38, -3e38, np.inf, -np.inf, np.nan], np.float32)
SCORES = {
    "draws": lambda rng: rng.integers(0, 2**31, SIZE).astype(np.int32),
    "any integers": lambda rng: rng.integers(-(2**31), 2**31, SIZE).astype(np.int32),
    "ends of int32": lambda rng: rng.choice(np.array([-(2**31), -1, 0, 2**31 - 1], np.int32), SIZE),
    "many ties": lambda rng: rng.integers(0, 3, SIZE).astype(np.int32),
    "all equal": lambda rng: np.full(SIZE, 7, np.int32),
    "unsigned": lambda rng: rng.integers(0, 2**32, SIZE).astype(np.uint32),
    "floats": lambda rng: rng.normal(size=SIZE).astype(np.float32),
    "floats of one bit": lambda rng: np.float32(1) + rng.integers(0, 2, SIZE).astype(np.float32) * np.float32(2**-23),
    "special floats": lambda rng: rng.choice(SPECIAL, SIZE),
    "half floats": lambda rng: rng.normal(size=SIZE).astype(np.float16),
}
COUNTS = (0, 1, 2, 100, SIZE - 1, SIZE, 2**30)
LAYERS, SHARES = 2, 3
lowest_of_shares = jax.jit(jax.vmap(jax.vmap(lowest, (0, 0, 0)), (0, 0, None)))


def by_sorting(score, allowed, count):
    """The definition: a stable sort by (allowed first, score), -0 as 0, NaN last."""
    order = np.lexsort((np.arange(score.size), score + np.zeros((), score.dtype), ~allowed))
    chosen = np.zeros(score.size, bool)
    chosen[order[: max(int(count), 0)]] = True
    return chosen & allowed


@pytest.mark.parametrize("kind", SCORES)
def test_masks_are_those_of_a_sort(kind):
    rng = np.random.default_rng(0)
    score = np.stack([[SCORES[kind](rng) for _ in range(SHARES)] for _ in range(LAYERS)])
    for share in (1.0, 0.5, 0.01, 0.0):
        allowed = rng.random(score.shape) < share
        for count in COUNTS:
            counts = np.array([count, count // 2, max(count - 1, 0)], np.int32)
            got = np.asarray(lowest_of_shares(score, allowed, counts))
            for at in np.ndindex(LAYERS, SHARES):
                np.testing.assert_array_equal(
                    got[at], by_sorting(score[at], allowed[at], counts[at[1]]), str((at, count))
                )


@pytest.mark.parametrize("size", [1, 31, 32, 33, 257, 1024])
def test_counts_are_the_cumulative_sum_and_places_those_set(size):
    for share in (0.0, 0.3, 1.0):
        mask = np.random.default_rng(size).random(size) < share
        np.testing.assert_array_equal(counts_up_to(jnp.asarray(mask)), np.cumsum(mask))
        places = np.flatnonzero(mask)
        for capacity in {1, max(1, places.size - 1), places.size + 1, size}:
            want = np.append(places, np.full(size + 1, size))[:capacity]
            np.testing.assert_array_equal(places_of(jnp.asarray(mask), capacity), want)


def test_keys_order_as_scores_and_tie_as_they_do():
    score = np.sort(np.concatenate([SPECIAL, np.random.default_rng(1).normal(size=100).astype(np.float32)]))
    keys = np.asarray(order_keys(jnp.asarray(score))).astype(np.int64)
    same = (score[1:] == score[:-1]) | (np.isnan(score[1:]) & np.isnan(score[:-1]))
    np.testing.assert_array_equal(np.diff(keys) == 0, same)
    assert np.diff(keys).min() >= 0
    with jax.enable_x64(True):
        wide = np.concatenate([score.astype(np.float64), 1 + 2.0**-52 * np.arange(3)])
        np.testing.assert_array_equal(
            np.argsort(order_keys(jnp.asarray(wide)), kind="stable"), wide.argsort(kind="stable")
        )


@pytest.mark.parametrize(("block", "shares"), [((1, 1), 2), ((2, 2), 1)])
def test_blocks_nearest_to_zero_of_each_sign_are_those_of_their_ranks(block, shares):
    grid = BlockGrid((16 * block[0], 8 * block[1]), block, shares)
    rng = np.random.default_rng(shares)
    index = index_from_mask(np.arange(128).reshape(16, 8) % 3 < 2, grid, 100)
    nearest = jax.jit(drop.nearest_of_each_sign, static_argnums=2)
    by_rank = jax.jit(
        lambda values, count: choose_drops(
            index, grid, drop.sign(values, index, grid), jnp.ones(100, bool), count, regrow_dropped=False
        )
    )
    for positives in (0.5, 0.1, 0.0, 1.0):
        size = rng.integers(0, 4, (100, *block)).astype(np.float32)  # many ties, many zeros
        values = jnp.asarray(np.where(rng.random((100, 1, 1)) < positives, size, -size))
        for count in (0, 1, 2, 3, 10, 11, 42, 43, 60):
            got = nearest(values, index, grid, count)
            np.testing.assert_array_equal(got, by_rank(values, count), str((positives, count)))
