"""Storage of one sparse weight: slots, pointers, free slots, and the way to the dense matrix and back.

The worked weight is 8 x 8 with blocks of 2 x 2, so 4 x 4 places; two shares of three blocks and one free slot each.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology.blocks import (
    BlockGrid,
    BlockIndex,
    BlockSparse,
    FlatIndex,
    abstract_index,
    active_mask,
    coordinates,
    from_dense,
    gather_blocks,
    index_from_mask,
    index_from_positions,
    positions_of,
    to_dense,
    validate,
)


def mask_of(drawing):
    return np.array([[place == "#" for place in line.split()] for line in drawing.strip().splitlines()])


# shares of columns                    shares of rows
#      share 0 | share 1                    0 . . 2   share 0
#      0 . | . 6                            . 1 . .
#      . . | 4 .                            -------
#      1 2 | . .    slots 3 and 7           4 5 . .   share 1, slots 3 and 7 are free
#      . . | 5 .    are free                . . 6 .
BY_COLUMNS = mask_of("# . . #\n . . # .\n # # . .\n . . # .")
BY_ROWS = mask_of("# . . #\n . # . .\n # # . .\n . . # .")


def test_worked_example_with_shares_of_columns():
    grid = BlockGrid((8, 8), (2, 2), 2, "columns")
    index = index_from_mask(BY_COLUMNS, grid, 8)
    assert index.rows.tolist() == [0, 2, 2, 0, 1, 3, 0, 0]
    assert index.cols.tolist() == [0, 0, 1, 4, 2, 2, 3, 4]
    # Two local columns a share: slots 0 1 | 2 and 0 1 | 2, counted from the share's first slot.
    assert index.column_pointers.tolist() == [[0, 2, 3], [0, 2, 3]]
    # Four rows a share. Share 0 row by row: slot 0 in row 0, slots 1 2 in row 2. Share 1: slot 2, slot 0, slot 1.
    assert index.row_pointers.tolist() == [[0, 1, 1, 3, 3], [0, 1, 2, 2, 3]]
    assert index.row_order.tolist() == [[0, 1, 2, 3], [2, 0, 1, 3]]
    assert positions_of(index, grid).tolist() == [[0, 2, 6, 8], [1, 3, 4, 8]]


def test_worked_example_with_shares_of_rows():
    grid = BlockGrid((8, 8), (2, 2), 2, "rows")
    index = index_from_mask(BY_ROWS, grid, 8)
    assert index.rows.tolist() == [0, 1, 0, 0, 2, 2, 3, 0]
    assert index.cols.tolist() == [0, 1, 3, 4, 0, 1, 2, 4]
    assert index.column_pointers.tolist() == [[0, 1, 2, 2, 3], [0, 1, 2, 3, 3]]
    assert index.row_pointers.tolist() == [[0, 2, 3], [0, 2, 3]]
    assert index.row_order.tolist() == [[0, 2, 1, 3], [0, 1, 2, 3]]
    assert positions_of(index, grid).tolist() == [[0, 3, 6, 8], [0, 2, 5, 8]]


def test_worked_example_of_single_elements():
    # 0 . 2      stored column by column: slots 0 1 | 2, slot 3 is free; flat = row * 3 + column
    # 1 . .
    grid = BlockGrid((2, 3), (1, 1))
    index = index_from_mask(mask_of("# . #\n # . ."), grid, 4)
    assert isinstance(index, FlatIndex)
    assert index.flat.tolist() == [0, 3, 2, 6]
    rows, cols = coordinates(index, grid)
    assert (rows.tolist(), cols.tolist()) == ([0, 1, 0, 0], [0, 0, 2, 3])
    weight = from_dense(jnp.arange(1.0, 7.0).reshape(2, 3), index, grid)
    assert weight.values.reshape(-1).tolist() == [1, 4, 3, 0]
    assert to_dense(weight).tolist() == [[1, 0, 3], [4, 0, 0]]


def test_worked_blocks_of_a_dense_matrix():
    # 1 2 | 3 4          block (1, 2): places (0, 0) and (1, 1) are active, the third slot is free
    # 5 6 | 7 8
    grid = BlockGrid((2, 4), (1, 2))
    weight = from_dense(jnp.arange(1.0, 9.0).reshape(2, 4), index_from_mask(np.eye(2, dtype=bool), grid, 3), grid)
    assert weight.values.tolist() == [[[1, 2]], [[7, 8]], [[0, 0]]]
    assert to_dense(weight).tolist() == [[1, 2, 0, 0], [0, 0, 7, 8]]
    assert (weight.rows.tolist(), weight.cols.tolist()) == ([0, 1, 0], [0, 1, 2])


# Properties.

GRIDS = [
    BlockGrid((4, 8), (1, 1), 2, "columns"),
    BlockGrid((8, 8), (1, 1), 1, "rows"),
    BlockGrid((8, 32), (1, 4), 4, "rows"),
    BlockGrid((32, 16), (4, 4), 2, "rows"),
    BlockGrid((16, 64), (2, 8), 4, "columns"),
]


def random_mask(seed, grid, per_share):
    """``per_share`` active places in each share, at random."""
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(grid.cells_per_share) < per_share for _ in range(grid.shards)]
    axis = 0 if grid.shard_axis == "rows" else 1
    return np.concatenate([part.reshape(grid.share_rows, grid.share_columns) for part in parts], axis=axis)


@pytest.fixture(params=[(0, 0), (3, 0), (3, 2)], ids=["empty", "exact", "free slots"])
def blocks_and_free(request):
    return request.param


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.block}-{g.shards}{g.shard_axis}")
def test_dense_round_trip(grid, blocks_and_free):
    count, free = blocks_and_free
    mask = random_mask(0, grid, count)
    index = index_from_mask(mask, grid, grid.shards * max(count + free, 1))
    dense = 1 + np.arange(grid.cells * grid.block[0] * grid.block[1], dtype=np.float32).reshape(grid.shape)
    weight = from_dense(jnp.asarray(dense), index, grid)
    validate(weight)
    np.testing.assert_array_equal(to_dense(weight), np.where(np.kron(mask, np.ones(grid.block)), dense, 0))
    is_free = ~np.asarray(active_mask(index, grid))
    assert is_free.sum() == weight.values.shape[0] - mask.sum()
    # A gather that clamps would put the last block of the matrix, which is not 0, into a free slot.
    assert not np.any(np.asarray(weight.values)[is_free])
    # And what stands in a free slot never reaches the matrix.
    filled = dataclasses.replace(weight, values=jnp.where(is_free[:, None, None], 7.0, weight.values))
    np.testing.assert_array_equal(to_dense(filled), to_dense(weight))


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.block}-{g.shards}{g.shard_axis}")
def test_index_matches_brute_force(grid):
    mask = random_mask(1, grid, 5)
    index = index_from_mask(mask, grid, grid.shards * 7)
    rows, cols = (np.asarray(a).reshape(grid.shards, 7) for a in coordinates(index, grid))
    rebuilt = index_from_positions(positions_of(index, grid), grid)
    jax.tree.map(np.testing.assert_array_equal, rebuilt, index)
    for share in range(grid.shards):
        row0 = share * grid.share_rows if grid.shard_axis == "rows" else 0
        col0 = share * grid.share_columns if grid.shard_axis == "columns" else 0
        mine = mask[row0 : row0 + grid.share_rows, col0 : col0 + grid.share_columns]
        expected = [(row0 + r, col0 + c) for c in range(mine.shape[1]) for r in range(mine.shape[0]) if mine[r, c]]
        found = list(zip(rows[share].tolist(), cols[share].tolist(), strict=True))
        assert found == expected + [(0, grid.columns)] * 2
        if isinstance(index, BlockIndex):
            local = [(r - row0, c - col0) for r, c in expected]
            check_pointers(index, share, local, mine.shape)


def check_pointers(index, share, local, lines):
    order = np.asarray(index.row_order[share])
    for axis, pointers, slots in ((1, index.column_pointers, np.arange(7)), (0, index.row_pointers, order)):
        starts = np.asarray(pointers[share])
        assert starts.shape == (lines[axis] + 1,)
        for line in range(lines[axis]):
            visited = slots[starts[line] : starts[line + 1]].tolist()
            assert visited == [slot for slot, place in enumerate(local) if place[axis] == line]
    assert sorted(order.tolist()) == list(range(7))
    assert order[5:].tolist() == [5, 6]


def test_abstract_index_has_the_shapes_of_a_real_one():
    for grid in GRIDS:
        real = index_from_mask(random_mask(2, grid, 4), grid, grid.shards * 5)
        expected = jax.tree.map(lambda a: (a.shape, a.dtype), real)
        assert jax.tree.map(lambda a: (a.shape, a.dtype), abstract_index(grid, grid.shards * 5)) == expected


def test_stacked_layers_are_handled_by_vmap():
    grid = GRIDS[3]
    dense_LKN = jax.random.normal(jax.random.key(0), (3, *grid.shape))
    indices = [index_from_mask(random_mask(seed, grid, 4), grid, 10) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *indices)
    weight_L = jax.vmap(lambda dense, index: from_dense(dense, index, grid))(dense_LKN, stacked)
    back_LKN = jax.vmap(to_dense)(weight_L)
    for layer, index in enumerate(indices):
        np.testing.assert_array_equal(back_LKN[layer], to_dense(from_dense(dense_LKN[layer], index, grid)))
        np.testing.assert_array_equal(weight_L.values[layer], gather_blocks(dense_LKN[layer], index, grid))


def test_column_counts_differ_by_at_most_one_and_the_first_are_larger():
    assert BlockGrid((8, 8), (2, 2), balance="column").column_counts(10).tolist() == [3, 3, 2, 2]
    assert BlockGrid((8, 8), (2, 2), 2, "columns", "column").column_counts(5).tolist() == [3, 2]
    assert BlockGrid((8, 8), (2, 2), 2, "rows", "column").column_counts(3).tolist() == [1, 1, 1, 0]


def test_unstructured_means_single_elements():
    assert BlockGrid((4, 4), (1, 1)).unstructured
    assert not BlockGrid((4, 4), (1, 4)).unstructured


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((8, 10), (2, 4)), r"block=\(2, 4\): 4 does not divide axis 1 of shape \(8, 10\)"),
        (((8, 8), (0, 4)), r"block=\(0, 4\): must be two whole numbers of at least 1"),
        (((8, 8), 4), "block=4: must be two whole numbers"),
        (((8, 8), (4, 4, 4)), r"block=\(4, 4, 4\): must be two whole numbers"),
        (((8, 8), (2.0, 4)), r"block=\(2.0, 4\): must be two whole numbers"),
        (((8, -8), (2, 4)), r"shape=\(8, -8\): must be two whole numbers"),
        (((8, 8), (2, 2), 0), "shards=0: must be a whole number of at least 1"),
        (((8, 8), (2, 2), 2, "column"), "shard_axis='column': not one of rows, columns"),
        (((8, 8), (2, 2), 2, "columns", "row"), "balance='row': not one of none, column"),
        (((8, 8), (2, 2), 3), "shards=3: does not divide the 4 block columns"),
        (((8, 8), (2, 4), 4, "columns"), "shards=4: does not divide the 2 block columns"),
        (((4, 8), (4, 4), 2, "rows"), "shards=2: does not divide the 1 block rows"),
        (((2**16, 2**15), (16, 16)), r"more than 2\*\*31 elements"),
    ],
)
def test_an_impossible_grid_is_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        BlockGrid(*arguments)
    assert "\n" not in str(error.value)


def test_an_impossible_mask_is_one_line():
    grid = BlockGrid((8, 8), (2, 2), 2)
    with pytest.raises(ValueError, match=r"mask of shape \(8, 8\): the grid has \(4, 4\) blocks"):
        index_from_mask(np.ones((8, 8), bool), grid, 16)
    with pytest.raises(ValueError, match="capacity=5: must be a multiple of shards=2"):
        index_from_mask(BY_COLUMNS, grid, 5)
    with pytest.raises(ValueError, match="share 0 holds 3 blocks, its capacity is 2"):
        index_from_mask(BY_COLUMNS, grid, 4)


def broken(**changes):
    """The worked weight with some fields of its index, or its values, replaced."""
    grid = BlockGrid((8, 8), (2, 2), 2, "columns")
    index = index_from_mask(BY_COLUMNS, grid, 8)
    values = changes.pop("values", None)
    weight = from_dense(jnp.ones((8, 8)), dataclasses.replace(index, **changes), grid)
    return weight if values is None else dataclasses.replace(weight, values=values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": jnp.ones((8, 2, 3))}, r"values of shape \(8, 2, 3\): must be \[n, 2, 2\]"),
        ({"values": jnp.ones((7, 2, 2))}, "7 slots do not divide into 2 shares"),
        ({"values": jnp.ones((8, 2, 2))}, "a free slot holds a value other than 0"),
        # Slots 0 and 1 hold the same place; slots 0 and 1 are swapped; the free slot comes first.
        ({"rows": jnp.array([2, 2, 2, 0, 1, 3, 0, 0])}, "unique and sorted"),
        ({"rows": jnp.array([2, 0, 2, 0, 1, 3, 0, 0])}, "unique and sorted"),
        ({"cols": jnp.array([4, 0, 1, 4, 2, 2, 3, 4])}, "unique and sorted"),
        # A block of share 1 in a slot of share 0.
        ({"cols": jnp.array([2, 2, 3, 4, 2, 2, 3, 4])}, "cols does not belong to the coordinates"),
        ({"column_pointers": jnp.array([[0, 1, 3], [0, 2, 3]])}, "column_pointers does not belong"),
        ({"row_pointers": jnp.zeros((2, 5), jnp.int32)}, "row_pointers does not belong"),
        ({"row_order": jnp.array([[1, 0, 2, 3], [2, 0, 1, 3]])}, "row_order does not belong"),
    ],
)
def test_validate_names_the_broken_promise(changes, message):
    validate(broken())
    with pytest.raises(ValueError, match=message):
        validate(broken(**changes))


def test_validate_checks_the_static_column_counts():
    grid = BlockGrid((8, 8), (2, 2), balance="column")
    validate(
        from_dense(jnp.ones((8, 8)), index_from_mask(mask_of("# # # .\n # . . #\n . . . .\n . . . ."), grid, 5), grid)
    )
    uneven = index_from_mask(mask_of("# # # .\n # . # .\n . . . .\n . . . ."), grid, 5)
    with pytest.raises(ValueError, match="a block column does not hold its static count"):
        validate(from_dense(jnp.ones((8, 8)), uneven, grid))
    with pytest.raises(ValueError, match="has no free slots"):
        validate(from_dense(jnp.ones((8, 8)), index_from_mask(np.eye(4, dtype=bool), grid, 5), grid))


def test_only_the_values_are_trainable_leaves():
    grid = BlockGrid((8, 8), (2, 2), 2)
    weight = from_dense(jnp.ones((8, 8)), index_from_mask(BY_COLUMNS, grid, 8), grid)
    float_leaves = [leaf.shape for leaf in jax.tree.leaves(weight) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert float_leaves == [(8, 2, 2)]
    gradient = jax.grad(lambda v: jnp.sum(to_dense(BlockSparse(v, weight.index, grid)) * 3))(weight.values)
    assert gradient[:, 0, 0].tolist() == [3, 3, 3, 0, 3, 3, 3, 0]  # exactly 0 in the free slots
