"""One rewiring, worked by hand; the properties are in rewire_properties_test.py.

The worked weight is 8 x 8 with blocks of 2 x 2: a grid of 4 x 4 places, 8 of them active.

    active      drop score     grow score     slots, S = 1   slots, shares cut rows (S = 2)
    # . . #     5 . . 2        . 3 9 .        0 . . 6        0 . . 3
    . # # .     . 1 7 .        4 . . 6        . 2 4 .        . 1 2 .
    # . . #     3 . . 8        . 9 1 .        1 . . 7        4 . . 7
    . # # .     . 4 6 .        2 . . 5        . 3 5 .        . 5 6 .

The two growth scores of 9 tie; the lower place (column 1 before column 2) wins.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology.blocks import BlockGrid, from_dense, index_from_mask, to_dense, validate
from sparsejax.topology.rewire import apply, choose_drops, drop_count, regrow, rewire
from sparsejax.topology.scores import by_share

ACTIVE = """
# . . #
. # # .
# . . #
. # # .
"""
DROP = np.array([[5, 0, 0, 2], [0, 1, 7, 0], [3, 0, 0, 8], [0, 4, 6, 0]])
GROW = np.array([[99, 3, 9, 99], [4, 99, 99, 6], [99, 9, 1, 99], [2, 99, 99, 5]])  # 99: active, never looked at

rewire_jit = jax.jit(rewire, static_argnames=("grid", "regrow_dropped"))


def mask_of(drawing):
    return np.array([[place == "#" for place in line.split()] for line in drawing.strip().splitlines()])


def draw(index, grid):
    mask = np.full((grid.rows, grid.columns), ".")
    for row, col in zip(np.asarray(index.rows), np.asarray(index.cols), strict=True):
        if col < grid.columns:
            mask[row, col] = "#"
    return "\n" + "\n".join(" ".join(line) for line in mask) + "\n"


def by_place(score_RC, grid):
    """Scores of all places in storage order, [S, m]."""
    parts = np.split(score_RC, grid.shards, axis=0 if grid.shard_axis == "rows" else 1)
    return np.stack([part.T.reshape(-1) for part in parts])


def by_slot(score_RC, index, grid):
    """Scores of the active places, [n]; a free slot gets the lowest of all, which must be ignored."""
    padded = np.pad(score_RC, ((0, 0), (0, 1)), constant_values=-1)
    return padded[np.asarray(index.rows), np.asarray(index.cols)]


def worked(rate, *, shards=1, axis="columns", balance="none", capacity=8, regrow=False, drop=DROP, grow=GROW):
    grid = BlockGrid((8, 8), (2, 2), shards, axis, balance)
    index = index_from_mask(mask_of(ACTIVE), grid, capacity)
    count = drop_count(rate, grid, 8 // shards, regrow)
    rewiring = rewire_jit(index, grid, by_slot(drop, index, grid), by_place(grow, grid), count, regrow)
    return draw(rewiring.index, grid), rewiring.old_slot.tolist()


UNBALANCED = {
    0.0: (ACTIVE, [0, 1, 2, 3, 4, 5, 6, 7]),
    # drop 1; grow the first 9
    0.125: ("\n# . . #\n. . # .\n# # . #\n. # # .\n", [0, 1, -1, 3, 4, 5, 6, 7]),
    # drop 1 2; grow both 9s
    0.25: ("\n# . # .\n. . # .\n# # . #\n. # # .\n", [0, 1, -1, 3, -1, 4, 5, 7]),
    # drop 1 2 3 4; grow 9 9 6 5
    0.5: ("\n# . # .\n. . # #\n. # . #\n. . # #\n", [0, -1, -1, 4, 5, -1, 7, -1]),
    # round(7.2) = 7 go, 8 stays; all grow but the 1
    0.9: ("\n. # # .\n# . . #\n. # . #\n# . . #\n", [-1, -1, -1, -1, -1, -1, 7, -1]),
}

BALANCED = {
    0.0: (ACTIVE, [0, 1, 2, 3, 4, 5, 6, 7]),
    # column 1 loses its 1 and takes its 9
    0.125: ("\n# . . #\n. . # .\n# # . #\n. # # .\n", [0, 1, -1, 3, 4, 5, 6, 7]),
    # column 3 loses its 2 and takes its 6, although column 2 has a 9
    0.25: ("\n# . . .\n. . # #\n# # . #\n. # # .\n", [0, 1, -1, 3, 4, 5, -1, 7]),
    # columns 0 1 1 3 lose 3 1 4 2 and take 4 9 3 6
    0.5: ("\n# # . .\n# . # #\n. # . #\n. . # .\n", [0, -1, -1, -1, 4, 5, -1, 7]),
    # all but the 8 of column 3
    0.9: ("\n. # # .\n# . . #\n. # # #\n# . . .\n", [-1, -1, -1, -1, -1, -1, -1, 7]),
}


@pytest.mark.parametrize("rate", UNBALANCED)
def test_worked_example(rate):
    assert worked(rate) == UNBALANCED[rate]


@pytest.mark.parametrize("rate", BALANCED)
def test_worked_example_with_balanced_columns(rate):
    assert worked(rate, balance="column") == BALANCED[rate]


def test_worked_example_with_shares_of_columns():
    # Each half drops one of its own: 1 on the left, 2 on the right.
    assert worked(0.25, shards=2) == UNBALANCED[0.25]
    # Left drops 1 3 and takes 9 4; right drops 2 6 and takes 9 6.
    after = "\n# . # .\n# . # #\n. # . #\n. # . .\n"
    assert worked(0.5, shards=2) == (after, [0, -1, -1, 3, -1, 4, -1, 7])


def test_worked_example_with_shares_of_rows():
    # Top drops 1 2 and takes 9 6; bottom drops 3 4 and takes 9 5: the picture of S = 1, other slots.
    assert worked(0.5, shards=2, axis="rows") == (UNBALANCED[0.5][0], [0, -1, 2, -1, -1, 6, 7, -1])


def test_free_slots_stay_last_in_their_share_and_are_never_dropped():
    after, old_slot = UNBALANCED[0.25]
    assert worked(0.25, capacity=10) == (after, [*old_slot, -1, -1])
    # With S = 2 each share has 5 slots: 4 blocks and a free one; the right half starts at slot 5.
    assert worked(0.25, shards=2, capacity=10) == (after, [0, 1, -1, 3, -1, -1, 5, 6, 8, -1])


def test_a_dropped_block_regrows_only_when_asked_to():
    # 1 at (1, 1) and 2 at (0, 3) go; both places now have the highest growth score.
    assert worked(0.25) == UNBALANCED[0.25]
    # Asked to, both come back as new blocks (the 99s), so the picture stays and two slots start again.
    assert worked(0.25, regrow=True) == (ACTIVE, [0, 1, -1, 3, 4, 5, -1, 7])
    # Where (0, 3) scores 0 instead, the first 9 takes its place.
    grow = np.where(DROP == 2, 0, GROW)
    after = "\n# . . .\n. # # .\n# # . #\n. # # .\n"
    assert worked(0.25, regrow=True, grow=grow) == (after, [0, 1, -1, -1, 3, 4, 5, 7])


def test_ties_go_to_the_lower_place():
    even = np.ones((4, 4), int)
    # Column 0 goes (the two lowest slots); its empty places (1, 0) and (3, 0) come.
    after = "\n. . . #\n# # # .\n. . . #\n# # # .\n"
    assert worked(0.25, drop=even, grow=even) == (after, [-1, -1, 2, 3, 4, 5, 6, 7])


@pytest.mark.parametrize(
    ("rate", "active", "expected"),
    [
        (0.9, 100, 90),  # keeps 10; int(100 * (1 - 0.9)) in floating point keeps 9
        (0.3, 100, 30),
        (0.0, 100, 0),
        (0.005, 100, 0),  # 0.5 rounds to even 0
        (0.015, 100, 2),  # 1.5 rounds to even 2
        (0.025, 100, 2),  # 2.5 rounds to even 2
        (0.999, 100, 99),  # round(99.9) = 100, but one block stays
        (0.5, 1, 0),  # a single block cannot be replaced
        (0.9, 950, 50),  # only 50 of 1000 places are inactive
        (0.9, 1000, 0),  # nowhere to grow
    ],
)
def test_drop_count_worked_numbers(rate, active, expected):
    grid = BlockGrid((100, 10), (1, 1))
    assert drop_count(rate, grid, active, regrow_dropped=False) == expected


def test_drop_count_where_regrowth_or_balance_change_the_room():
    full = BlockGrid((8, 8), (2, 2))
    assert drop_count(0.9, full, 14, regrow_dropped=False) == 2
    assert drop_count(0.9, full, 14, regrow_dropped=True) == 13  # every emptied place may be filled again
    # 14 blocks in 4 columns of 4: counts 4 4 3 3, so two columns can take one block each.
    balanced = BlockGrid((8, 8), (2, 2), balance="column")
    assert drop_count(0.9, balanced, 14, regrow_dropped=False) == 2


def test_full_columns_do_not_swallow_the_drops_of_a_balanced_weight():
    # Counts 4 4 3 3. The lowest scores sit in the two full columns, where nothing could grow:
    #   1 2 7 9        # # . #
    #   1 2 8 7   ->   # # # .     the 7s go, the two empty places come
    #   1 2 8 9        # # # #
    #   1 2 . .        # # # #
    grid = BlockGrid((8, 8), (2, 2), balance="column")
    mask = np.ones((4, 4), bool)
    mask[3, 2:] = False
    score = np.array([[1, 2, 7, 9], [1, 2, 8, 7], [1, 2, 8, 9], [1, 2, 0, 0]])
    index = index_from_mask(mask, grid, 14)
    count = drop_count(0.5, grid, 14, regrow_dropped=False)
    rewiring = rewire_jit(index, grid, by_slot(score, index, grid), by_place(score, grid), count, False)
    assert draw(rewiring.index, grid) == "\n# # . #\n# # # .\n# # # #\n# # # #\n"


def test_values_follow_their_blocks_and_grown_blocks_start_at_zero():
    grid = BlockGrid((8, 8), (2, 2))
    index = index_from_mask(mask_of(ACTIVE), grid, 8)
    dense = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)))
    weight = from_dense(dense, index, grid)
    rewiring = rewire_jit(index, grid, by_slot(DROP, index, grid), by_place(GROW, grid), 2, False)
    after = apply(weight, rewiring)
    assert not np.any(after.values[2]) and not np.any(after.values[4])  # the two slots of -1 above
    gone = np.kron(np.isin(DROP, [1, 2]), np.ones((2, 2), bool))
    np.testing.assert_array_equal(to_dense(after), np.where(gone, 0, to_dense(weight)))


def test_dropping_without_growing_leaves_free_slots_and_growing_fills_them():
    grid = BlockGrid((8, 8), (2, 2))
    index = index_from_mask(mask_of(ACTIVE), grid, 8)
    drop = jnp.asarray(DROP.T.reshape(-1)[mask_of(ACTIVE).T.reshape(-1)])
    gone = choose_drops(index, grid, drop, jnp.ones(8, bool), 2, False)
    left = regrow(index, grid, gone, jnp.asarray(by_place(GROW, grid)), 0, False)
    # The scores 1 and 2 are gone: places (1, 1) and (0, 3).
    assert (
        draw(left.index, grid)
        == """
# . . .
. . # .
# . . #
. # # .
"""
    )
    np.testing.assert_array_equal(left.old_slot, [0, 1, 3, 4, 5, 7, -1, -1])
    validate(from_dense(jnp.ones((8, 8)), left.index, grid))
    nothing = jnp.zeros((8,), bool)
    full = regrow(left.index, grid, nothing, jnp.asarray(by_place(np.where(GROW == 99, 0, GROW), grid)), 2, False)
    assert (
        draw(full.index, grid)
        == """
# . # .
. . # .
# # . #
. # # .
"""
    )


def test_a_block_that_comes_back_at_once_names_its_former_slot():
    grid = BlockGrid((8, 8), (2, 2))
    index = index_from_mask(mask_of(ACTIVE), grid, 8)
    gone = jnp.arange(8) == 2
    place = np.zeros((1, 16))
    place[0, 5] = 9  # column 1, row 1: the place of slot 2
    back = regrow(index, grid, gone, jnp.asarray(place), 1, True)
    np.testing.assert_array_equal(back.old_slot, [0, 1, -1, 3, 4, 5, 6, 7])
    np.testing.assert_array_equal(back.former_slot, np.arange(8))


def test_arguments_that_cannot_be_are_one_line():
    grid = BlockGrid((8, 8), (2, 2))
    index = index_from_mask(np.eye(4, dtype=bool), grid, 4)
    drop, grow = jnp.zeros(4), jnp.zeros((1, 16))
    for arguments, message in (
        ((drop[:3], grow, 1), r"drop_score has shape \(3,\): must be \(4,\)"),
        ((drop, grow[0], 1), r"grow_score has shape \(16,\): must be \(1, 16\)"),
        ((drop, grow, 5), "count=5: a share has 4 slots"),
        ((drop, grow, -1), "count=-1: a share has 4 slots"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            rewire(index, grid, *arguments, regrow_dropped=False)
    for rate in (-0.1, 1.1, 30, float("nan")):
        with pytest.raises(ValueError, match=r"^rate=.*: must be in \[0, 1\]$"):
            drop_count(rate, grid, 4, regrow_dropped=False)
    with pytest.raises(ValueError, match=r"^active=17: a share has 1 to 16 blocks$"):
        drop_count(0.1, grid, 17, regrow_dropped=False)
    with pytest.raises(ValueError, match=r"^a dense matrix of shape \(4, 4\): the grid has \(8, 8\)$"):
        from_dense(jnp.ones((4, 4)), index, grid)
    with pytest.raises(ValueError, match=r"^scores of shape \(8, 8\): the grid has \(4, 4\) places$"):
        by_share(jnp.ones((8, 8)), grid)
