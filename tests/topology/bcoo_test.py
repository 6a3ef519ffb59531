"""Block-sparse weights to and from ``jax.experimental.sparse.BCOO``."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO

from sparsejax.topology.bcoo import from_bcoo, to_bcoo
from sparsejax.topology.blocks import BlockGrid, BlockSparse, index_from_mask, to_dense, validate

# W [4, 4] with blocks (2, 2): blocks (1, 0) and (0, 1) are active, a third slot is free.
#
#      0 0 | 5 6
#      0 0 | 7 8
#     -----+-----
#      1 2 | 0 0
#      3 4 | 0 0
GRID = BlockGrid((4, 4), (2, 2))
DENSE = np.array([[0, 0, 5, 6], [0, 0, 7, 8], [1, 2, 0, 0], [3, 4, 0, 0]], np.float32)


def worked_example() -> BlockSparse:
    index = index_from_mask(np.array([[False, True], [True, False]]), GRID, capacity=3)
    values = jnp.asarray([[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[0, 0], [0, 0]]], jnp.float32)
    return BlockSparse(values, index, GRID)


def test_entries_follow_slot_order_and_free_slots_lie_outside():
    matrix = to_bcoo(worked_example())
    assert matrix.shape == (4, 4)
    np.testing.assert_array_equal(matrix.data, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0])
    np.testing.assert_array_equal(matrix.indices[:4], [(2, 0), (2, 1), (3, 0), (3, 1)])
    np.testing.assert_array_equal(matrix.indices[8:], [(4, 4)] * 4)
    np.testing.assert_array_equal(matrix.todense(), DENSE)


def test_back_from_bcoo_is_the_same_weight():
    weight = from_bcoo(to_bcoo(worked_example()), GRID, capacity=3)
    validate(weight)
    np.testing.assert_array_equal(weight.values, worked_example().values)
    np.testing.assert_array_equal(weight.rows, worked_example().rows)
    np.testing.assert_array_equal(weight.cols, worked_example().cols)


def test_one_stored_element_activates_its_block_even_if_it_is_zero():
    matrix = BCOO((jnp.asarray([9.0, 0.0]), jnp.asarray([[0, 3], [2, 2]])), shape=(4, 4))
    weight = from_bcoo(matrix, GRID, capacity=2)
    np.testing.assert_array_equal(weight.rows, [0, 1])
    np.testing.assert_array_equal(weight.cols, [1, 1])
    np.testing.assert_array_equal(to_dense(weight), matrix.todense())


def test_unstructured_weights_round_trip():
    grid = BlockGrid((4, 4), (1, 1))
    weight = from_bcoo(to_bcoo(worked_example()), grid, capacity=8)
    np.testing.assert_array_equal(to_dense(weight), DENSE)
    np.testing.assert_array_equal(to_bcoo(weight).todense(), DENSE)


def test_what_does_not_fit_is_an_error():
    matrix = to_bcoo(worked_example())
    with pytest.raises(ValueError, match=r"must be a plain \(8, 4\)"):
        from_bcoo(matrix, BlockGrid((8, 4), (2, 2)), capacity=4)
    with pytest.raises(ValueError, match="holds 2 blocks, its capacity is 1"):
        from_bcoo(matrix, GRID, capacity=1)
