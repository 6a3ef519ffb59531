"""Lines: one drawing, then every kind of weight of the contract suite against a plain search of its mask."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.kernels.lines import Lines, column_lines, row_lines
from sparsejax.topology.blocks import BlockGrid, index_from_mask
from tests.kernels.cases import CASES, make_weight

BLOCKED = [name for name, case in CASES.items() if not case.grid.unstructured]


def test_two_row_shares_drawn():
    #          columns          slots (share 0: 0 1 2, share 1: 3 4 and the free 5)
    mask = np.array(
        [
            [1, 0, 1],  #       0 . 2
            [0, 1, 0],  #       . 1 .
            [1, 0, 0],  #       3 . .
            [0, 0, 1],  #       . . 4
        ],
        dtype=bool,
    )
    grid = BlockGrid((8, 6), (2, 2), shards=2, shard_axis="rows")
    index = index_from_mask(mask, grid, 6)
    columns, rows = column_lines(index, grid), row_lines(index, grid)
    assert [x.tolist() for x in columns[:2]] == [[0, 2, 3], [2, 3, 5]]
    assert columns.slot.tolist()[:5] == [0, 3, 1, 2, 4]
    assert columns.place.tolist()[:5] == [0, 2, 1, 0, 3]
    assert [x.tolist() for x in rows[:2]] == [[0, 2, 3, 4], [2, 3, 4, 5]]
    assert rows.slot.tolist()[:5] == [0, 2, 1, 3, 4]
    assert rows.place.tolist()[:5] == [0, 2, 1, 0, 2]


def listed(lines: Lines) -> list[list[tuple[int, int]]]:
    """(slot, place) of every entry, line by line."""
    start, stop, slot, place = (np.asarray(x) for x in lines)
    return [list(zip(slot[a:b].tolist(), place[a:b].tolist(), strict=True)) for a, b in zip(start, stop, strict=True)]


@pytest.mark.parametrize("case", BLOCKED)
def test_every_block_is_in_its_column_and_in_its_row(case):
    weight = make_weight(CASES[case], seed=1)
    grid, places = weight.grid, {}
    for slot, (row, col) in enumerate(zip(np.asarray(weight.rows), np.asarray(weight.cols), strict=True)):
        if col < grid.columns:
            places[int(row), int(col)] = slot
    by_column = [[(places[i, j], i) for i in range(grid.rows) if (i, j) in places] for j in range(grid.columns)]
    by_row = [[(places[i, j], j) for j in range(grid.columns) if (i, j) in places] for i in range(grid.rows)]
    assert listed(column_lines(weight.index, grid)) == by_column
    assert listed(row_lines(weight.index, grid)) == by_row
