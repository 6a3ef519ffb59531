"""Weights side by side: the dense matrix they make, the promises of the storage, and the way back."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology.blocks import (
    BlockGrid,
    BlockSparse,
    active_mask,
    index_from_mask,
    index_from_positions,
    validate,
)
from sparsejax.topology.concatenate import concatenate, concatenated_grid, join_columns, split_columns, split_slots


@functools.cache
def random_weights(shards: int, axis: str, free: int) -> tuple[BlockSparse, BlockSparse]:
    """Two weights on one input, with blocks and free slots of different number in every share."""
    grids = [BlockGrid((8, width), (2, 2), shards, axis) for width in (16, 24)]
    return tuple(
        random_weight(g, blocks, free * i, seed=i) for i, (g, blocks) in enumerate(zip(grids, (5, 7), strict=True))
    )


def random_weight(grid: BlockGrid, blocks: int, free: int, seed: int) -> BlockSparse:
    rng = np.random.default_rng(seed)
    position = np.full((grid.shards, blocks + free), grid.cells_per_share)
    for share in range(grid.shards):
        position[share, :blocks] = np.sort(rng.permutation(grid.cells_per_share)[:blocks])
    active = position.reshape(-1, 1, 1) < grid.cells_per_share
    values = rng.standard_normal((position.size, *grid.block)) * active
    return BlockSparse(jnp.asarray(values, jnp.float32), index_from_positions(jnp.asarray(position), grid), grid)


@functools.cache
def together(shards: int, axis: str, free: int) -> BlockSparse:
    return jax.jit(concatenate)(random_weights(shards, axis, free))


def dense(weight: BlockSparse) -> np.ndarray:
    matrix = np.zeros(weight.grid.shape, np.float32)
    for row, col, block in zip(*(np.asarray(a) for a in (weight.rows, weight.cols, weight.values)), strict=True):
        if col < weight.grid.columns:
            add_block(matrix, row, col, block)
    return matrix


def add_block(matrix: np.ndarray, row: int, col: int, block: np.ndarray) -> None:
    matrix[row * 2 : row * 2 + 2, col * 2 : col * 2 + 2] += block


def test_worked_example():
    # # .   . . #
    # . #   # . .     each weight column by column: slots 0 1 and 0 1 2
    # . .   . . #
    left = mask_weight("# .\n . #\n . .")
    right = mask_weight(". . #\n # . .\n . . #")
    both = concatenate([left, right])
    assert both.grid == BlockGrid((6, 10), (2, 2))
    assert both.index.rows.tolist() == [0, 1, 1, 0, 2]
    assert both.index.cols.tolist() == [0, 1, 2, 4, 4]
    assert both.index.column_pointers.tolist() == [[0, 1, 2, 3, 3, 5]]
    assert both.index.row_pointers.tolist() == [[0, 2, 4, 5]]
    assert both.index.row_order.tolist() == [[0, 3, 1, 2, 4]]


def mask_weight(drawing: str) -> BlockSparse:
    mask = np.array([[place == "#" for place in line.split()] for line in drawing.strip().splitlines()])
    grid = BlockGrid((2 * mask.shape[0], 2 * mask.shape[1]), (2, 2))
    return BlockSparse(jnp.ones((mask.sum(), 2, 2)), index_from_mask(mask, grid, mask.sum()), grid)


def side_by_side(weights: Sequence[BlockSparse]) -> np.ndarray:
    """The dense matrices beside one another, share by share where columns are cut."""
    grid = weights[0].grid
    shares = grid.shards if grid.shard_axis == "columns" else 1
    parts = [np.split(dense(weight), shares, axis=1) for weight in weights]
    return np.concatenate([part[s] for s in range(shares) for part in parts], axis=1)


@pytest.mark.parametrize(("shards", "axis"), [(1, "columns"), (2, "columns"), (2, "rows")])
def test_it_is_the_dense_matrices_side_by_side_and_keeps_the_promises(shards, axis):
    both = together(shards, axis, 0)
    validate(both)
    np.testing.assert_array_equal(dense(both), side_by_side(random_weights(shards, axis, 0)))


@pytest.mark.parametrize(("shards", "axis"), [(1, "columns"), (2, "columns"), (2, "rows")])
def test_free_slots_become_zero_blocks_of_columns_and_of_no_row(shards, axis):
    both, want = together(shards, axis, 2), side_by_side(random_weights(shards, axis, 2))
    by_column, by_row = np.zeros_like(want), np.zeros_like(want)
    slots = both.index.row_order.shape[1]
    for share in range(shards):
        values, rows, cols = (
            np.asarray(a).reshape(shards, slots, *a.shape[1:])[share]
            for a in (both.values, both.index.rows, both.index.cols)
        )
        assert sorted(both.index.row_order[share].tolist()) == list(range(slots))
        for column in range(both.grid.share_columns):
            for slot in range(*both.index.column_pointers[share, column : column + 2].tolist()):
                assert cols[slot] == column + (share * both.grid.share_columns if axis == "columns" else 0)
                add_block(by_column, rows[slot], cols[slot], values[slot])
        for row in range(both.grid.share_rows):
            for entry in range(*both.index.row_pointers[share, row : row + 2].tolist()):
                slot = both.index.row_order[share, entry]
                assert rows[slot] == row + (share * both.grid.share_rows if axis == "rows" else 0)
                add_block(by_row, rows[slot], cols[slot], values[slot])
    np.testing.assert_array_equal(by_column, want)
    np.testing.assert_array_equal(by_row, want)


@pytest.mark.parametrize("shards", [1, 2])
def test_slots_and_columns_find_back(shards):
    weights, both = random_weights(shards, "columns", 2), together(shards, "columns", 2)
    grids = [weight.grid for weight in weights]
    for part, weight in zip(split_slots(both.values + 1.0, weights), weights, strict=True):
        active = np.asarray(active_mask(weight.index, weight.grid))[:, None, None]
        np.testing.assert_array_equal(part, np.where(active, weight.values + 1.0, 0.0))
    outputs = [
        np.random.default_rng(i).standard_normal((3, grid.shape[1])).astype(np.float32) for i, grid in enumerate(grids)
    ]
    jax.tree.map(np.testing.assert_array_equal, list(split_columns(join_columns(outputs, both.grid), grids)), outputs)
    x = np.random.default_rng(9).standard_normal((3, 8)).astype(np.float32)
    products = [x @ dense(weight) for weight in weights]
    np.testing.assert_allclose(join_columns(products, both.grid), x @ side_by_side(weights), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": (2, 4)}, r"block of \(2, 2\), \(2, 4\): weights side by side must have the same"),
        ({"shape": (4, 8)}, "input widths of 8, 4: weights side by side must have the same"),
        ({"shards": 2}, "shards of 1, 2: weights side by side must have the same"),
    ],
)
def test_weights_that_differ_are_refused_in_one_line(change, message):
    grid = BlockGrid((8, 8), (2, 2))
    with pytest.raises(ValueError, match=message) as caught:
        concatenated_grid([grid, dataclasses.replace(grid, **change)])
    assert "\n" not in str(caught.value)


def test_single_elements_are_refused():
    with pytest.raises(ValueError, match="must be stored in larger blocks"):
        concatenated_grid([BlockGrid((8, 8), (1, 1))] * 2)
