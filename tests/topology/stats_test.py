"""Statistics of a topology, by hand.

one         other       4 x 4 places; `one` has a free slot
# . . .     # . . #
# . # .     . . # .
. . . .     . . . .
. . # .     # . . .
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology.blocks import BlockGrid, active_mask, index_from_mask
from sparsejax.topology.stats import activity, churn, dead_lines, density, distance, overlap, survival

GRID = BlockGrid((8, 8), (2, 2))
ONE = np.array([[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0]], bool)
OTHER = np.array([[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], bool)


@pytest.fixture(scope="module")
def one():
    return index_from_mask(ONE, GRID, 5)


@pytest.fixture(scope="module")
def other():
    return index_from_mask(OTHER, GRID, 4)


def test_activity_is_the_mask(one, other):
    np.testing.assert_array_equal(activity(one, GRID), ONE)
    np.testing.assert_array_equal(activity(other, GRID), OTHER)
    flat = BlockGrid((4, 4), (1, 1))
    np.testing.assert_array_equal(activity(index_from_mask(ONE, flat, 6), flat), ONE)


def test_density_counts_blocks_not_slots(one):
    assert density(one, GRID) == 4 / 16


def test_churn_is_the_replaced_part_of_the_active_blocks(one):
    # Slots 1 and 3 are new; slot 4 is free and does not count.
    active = active_mask(one, GRID)
    assert churn(active, jnp.array([0, -1, 2, -1, -1])) == 2 / 4
    assert churn(active, jnp.array([0, 1, 2, 3, -1])) == 0


def test_overlap_is_the_shared_part_of_the_first():
    assert overlap(ONE, OTHER) == 2 / 4
    assert overlap(ONE, ONE) == 1
    assert overlap(ONE & OTHER, ONE) == 1
    assert overlap(ONE, ONE & OTHER) == 2 / 4


def test_dead_lines_are_rows_and_columns_without_a_block(one, other):
    assert dead_lines(one, GRID) == (1 / 4, 2 / 4)
    assert dead_lines(other, GRID) == (1 / 4, 1 / 4)


def test_statistics_of_stacked_layers(one):
    empty = index_from_mask(np.zeros((4, 4), bool), GRID, 5)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, empty)
    assert jax.vmap(lambda index: density(index, GRID))(stacked).tolist() == [0.25, 0.0]
    # Two of four blocks of the first layer are new; the second has none, so the layers together have 2 of 4.
    active = jax.vmap(lambda index: active_mask(index, GRID))(stacked)
    assert churn(active, jnp.array([[0, -1, -1, 3, -1], [-1] * 5])) == 0.5


def test_survival_is_the_kept_part_of_the_last_growth():
    # Slots 1, 2 and 4 held blocks grown last time; slots 0 and 2 are gone.
    young = jnp.array([False, True, True, False, True])
    dropped = jnp.array([True, False, True, False, False])
    assert survival(young, dropped) == pytest.approx(2 / 3)
    assert jnp.isnan(survival(jnp.zeros((5,), bool), dropped))


def test_distance_counts_places_of_one_alone(one, other):
    # (1, 0) and (3, 2) of one; (0, 3) and (3, 0) of the other: 4 of 16 places.
    assert distance(one, other, GRID) == 4 / 16
    assert distance(one, one, GRID) == 0
