"""Where blocks come, by every rule, on a weight of 4 x 4 places.

active      gradient      draw           storage order goes down the columns
# . . #     9 3 8 9       9 1 5 9
. # # .     4 9 9 6       2 9 9 7
# . . #     9 7 1 9       9 3 8 9
. # # .     2 9 9 5       4 9 9 6
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology import growth
from sparsejax.topology.blocks import BlockGrid, index_from_mask
from sparsejax.topology.rewire import candidates, regrow
from sparsejax.topology.scores import by_share

GRID = BlockGrid((8, 8), (2, 2))
ACTIVE = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]], bool)
GRADIENT = np.array([[9, 3, 8, 9], [4, 9, 9, 6], [9, 7, 1, 9], [2, 9, 9, 5]], np.float32)
DRAW = np.array([[9, 1, 5, 9], [2, 9, 9, 7], [9, 3, 8, 9], [4, 9, 9, 6]], np.int32)


def two_steps(gradient, later, grid=GRID):
    """The memory of ``gradient_sum`` after a first step with ``gradient`` and the others, which add ``later``."""
    memory = growth.no_memory("gradient_sum", 1, grid)[0]
    for step in (gradient, later):
        memory = growth.remember("gradient_sum", memory, by_share(jnp.asarray(step, jnp.float32), grid), 0.9)
    return memory


def grown(rule, count, grid=GRID, by_gradient=0, gradient=GRADIENT, active=ACTIVE, later=GRADIENT):
    """Drop nothing, grow ``count`` a share into free slots; the new places as a drawing of 0 and 1."""
    index = index_from_mask(active, grid, grid.cells)
    nothing = jnp.zeros((grid.cells,), bool)
    score = growth.order(
        rule,
        grid,
        candidates(index, grid, nothing, False),
        by_share(jnp.asarray(gradient), grid) if rule != "gradient_sum" else two_steps(gradient, later, grid),
        by_share(jnp.asarray(DRAW), grid),
        jnp.int32(count),
        jnp.int32(by_gradient),
    )
    new = regrow(index, grid, nothing, score, count, False).index
    drawing = np.zeros((grid.rows, grid.columns), int)
    drawing[
        np.asarray(new.rows)[np.asarray(new.cols) < grid.columns],
        np.asarray(new.cols)[np.asarray(new.cols) < grid.columns],
    ] = 1
    return (drawing - active).tolist()


def test_random_takes_the_highest_draws():
    assert grown("random", 3) == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("rule", ["gradient", "momentum"])
def test_gradient_takes_the_highest_scores(rule):
    assert grown(rule, 3) == [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_gradient_sum_grows_the_highest_sums_of_the_candidates():
    # One row of places, all free, two wanted: the first gradient makes 7 6 5 4 candidates, the sums 14 13 5 4 decide.
    row, free = BlockGrid((1, 8), (1, 1)), np.zeros((1, 8), bool)
    first, later = np.arange(8.0)[None], np.array([[90, 80, 70, 60, 0, 0, 7, 7]], float)
    index = index_from_mask(free, row, 8)
    nothing, draw = jnp.zeros((8,), bool), jnp.arange(8, 0, -1, dtype=jnp.int32)[None]
    score = growth.order(
        "gradient_sum", row, jnp.ones((1, 8), bool), two_steps(first, later, row), draw, jnp.int32(2), jnp.int32(0)
    )
    assert regrow(index, row, nothing, score, 2, False).index.flat.tolist()[:2] == [6, 7]
    # Sums 0 to 7 from one step: 6 and 7, whatever is drawn.
    score = growth.order(
        "gradient_sum", row, jnp.ones((1, 8), bool), two_steps(first, 0 * first, row), draw, jnp.int32(2), jnp.int32(0)
    )
    assert regrow(index, row, nothing, score, 2, False).index.flat.tolist()[:2] == [6, 7]
    # Candidates 8 7 6 5 by the first gradient; sums 9 8 12 11.
    later = np.where(GRADIENT == 8, 1, np.where(GRADIENT == 7, 1, 6)).astype(np.float32)
    assert grown("gradient_sum", 2, later=later) == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_mix_grows_its_part_by_gradient_and_the_rest_by_draw():
    # 8 by gradient; of the others the draws 8 and 7.
    assert grown("mix", 3, by_gradient=1) == [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert grown("mix", 3, by_gradient=0) == grown("random", 3)
    assert grown("mix", 3, by_gradient=3) == grown("gradient", 3)


def test_momentum_neuron_shares_by_column():
    # Column sums 24 28 27 29 of 108: of 4 blocks a column is owed 0.9 to 1.07, whole parts 0 1 1 1; then the best left.
    assert grown("momentum_neuron", 4) == [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]]
    flat = np.where(ACTIVE, 0.0, [[0, 1, 50, 0], [2, 0, 0, 0], [0, 3, 40, 0], [1, 0, 0, 0]]).astype(np.float32)
    # Means 3 4 90 0 of 97: of 4 blocks column 2 is owed 3, has only 2 places; the rest goes to the highest left: 3, 2.
    assert grown("momentum_neuron", 4, gradient=flat) == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_every_share_grows_its_own():
    halves = BlockGrid((8, 8), (2, 2), shards=2)
    assert grown("gradient", 1, grid=halves) == [[0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_a_score_that_is_no_number_comes_last():
    broken = np.where(GRADIENT == 8, np.nan, GRADIENT)
    assert grown("gradient", 2, gradient=broken) == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert np.sum(grown("gradient", 8, gradient=np.full((4, 4), np.nan, np.float32))) == 8


@pytest.mark.parametrize("rule", ["random", *growth.SCORED])
@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_counts_are_exact(rule, count):
    rng = np.random.default_rng(count)
    for _ in range(3):
        scores = rng.integers(0, 3, (4, 4)).astype(np.float32)  # many ties, many zeros
        places = np.array(grown(rule, count, by_gradient=count // 2, gradient=scores))
        assert places.sum() == count and places.min() >= 0


def test_memory_adds_up_or_averages_and_is_kept_or_not():
    memory, fresh = jnp.array([1.0, 2.0]), jnp.array([3.0, 0.0])
    summed = two_steps(GRADIENT, 2 * GRADIENT)
    np.testing.assert_array_equal(summed[0], np.stack([GRADIENT.T.reshape(-1), 3 * GRADIENT.T.reshape(-1)]))
    np.testing.assert_allclose(growth.remember("momentum", memory, fresh, 0.9), [1.2, 1.8], rtol=1e-6)
    np.testing.assert_array_equal(growth.forget("gradient_sum", summed), growth.no_memory("gradient_sum", 1, GRID)[0])
    np.testing.assert_array_equal(growth.forget("momentum_neuron", memory), memory)


@pytest.mark.parametrize(("count", "mix", "expected"), [(10, 0.3, 3), (7, 0.5, 3), (5, 1.0, 5), (5, 0.0, 0)])
def test_the_part_by_gradient_is_whole(count, mix, expected):
    assert growth.mixed_count(count, mix) == expected


def test_what_does_not_fit_goes_to_the_next_with_room():
    wanted = {"a": jnp.array([[3], [3]]), "b": jnp.array([[3, 3]])}
    room = {"a": jnp.array([[1], [5]]), "b": jnp.array([[3, 9]])}
    filled = growth.fill_up(wanted, room)
    np.testing.assert_array_equal(filled["a"], [[1], [5]])
    np.testing.assert_array_equal(filled["b"], [[3, 3]])
    tight = growth.fill_up(wanted, {"a": jnp.array([[0], [0]]), "b": jnp.array([[3, 20]])})
    np.testing.assert_array_equal(tight["b"], [[3, 9]])


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match=r"^grow='gradients': unknown growth rule$"):
        grown("gradients", 1)


def test_the_program_depends_on_no_count():
    index = index_from_mask(ACTIVE, GRID, GRID.cells)
    where = candidates(index, GRID, jnp.zeros((16,), bool), False)
    scores = (by_share(jnp.asarray(GRADIENT), GRID), by_share(jnp.asarray(DRAW), GRID))
    program = jax.jit(lambda count: growth.order("mix", GRID, where, *scores, count, count // 2))
    for count in range(4):
        program(jnp.int32(count))
    assert program._cache_size() == 1
