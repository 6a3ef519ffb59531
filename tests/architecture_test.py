"""The drawing in docs/ARCHITECTURE.md is what the code does: every number is computed again and compared as text."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.topology.blocks import BlockGrid, BlockIndex, active_mask, index_from_mask
from sparsejax.topology.rewire import drop_count, rewire
from sparsejax.topology.scores import by_share

TEXT = (Path(__file__).parent.parent / "docs" / "ARCHITECTURE.md").read_text()

GRID = BlockGrid((8, 8), (2, 2), shards=2, shard_axis="columns")
ACTIVE = np.array([[1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0]], bool)
DROP = np.array([[5, 0, 0, 6], [0, 0, 1, 0], [2, 9, 0, 0], [0, 0, 8, 0]])
GROW = np.array([[0, 3, 9, 0], [4, 6, 0, 2], [0, 0, 7, 5], [1, 8, 0, 4]])
INDEX = index_from_mask(ACTIVE, GRID, capacity=8)


def picture(cells):
    """Four lines, ``a b | c d``, the bar between the two shares."""
    return ["{} {} | {} {}".format(*line) for line in cells]


def side_by_side(*titled):
    """Pictures beside each other, each under its title."""
    columns = [[title, *lines] for title, lines in titled]
    return "\n".join("".join(part.ljust(16) for part in line).rstrip() for line in zip(*columns, strict=True))


def with_values(values, index):
    """A picture with a value for each slot and a dot where no block is."""
    cells = np.full((4, 4), ".", object)
    for slot in np.flatnonzero(active_mask(index, GRID)):
        cells[int(index.rows[slot]), int(index.cols[slot])] = values[slot]
    return picture(cells)


def table(**rows):
    """One line a name, its numbers share by share."""
    lines = []
    for name, array in rows.items():
        shares = (" ".join(f"{number:2d}" for number in share) for share in np.asarray(array).reshape(2, -1))
        lines.append(f"{name:<16}{' | '.join(share.ljust(15) for share in shares)}".rstrip())
    return "\n".join(lines)


def storage():
    slots = np.arange(8)
    drawing = side_by_side(
        ("active", with_values(["#"] * 8, INDEX)),
        ("slots", with_values(slots, INDEX)),
    )
    assert isinstance(INDEX, BlockIndex)
    numbers = table(
        slot=slots,
        rows=INDEX.rows,
        cols=INDEX.cols,
        column_pointers=INDEX.column_pointers,
        row_pointers=INDEX.row_pointers,
        row_order=INDEX.row_order,
    )
    return f"{drawing}\n\n{numbers}"


def one_rewiring():
    padded = np.pad(DROP, ((0, 0), (0, 1)))  # a free slot has column 4
    drop = padded[np.asarray(INDEX.rows), np.asarray(INDEX.cols)]
    count = drop_count(0.3, GRID, active=3, regrow_dropped=False)
    rewiring = rewire(INDEX, GRID, jnp.asarray(drop), by_share(jnp.asarray(GROW), GRID), count, regrow_dropped=False)
    moved = ["+" if slot < 0 else "#" for slot in rewiring.old_slot.tolist()]
    drawing = side_by_side(
        ("drop score", with_values(drop, INDEX)),
        ("growth score", picture(np.where(ACTIVE, ".", GROW.astype(object)))),
        ("after", with_values(moved, rewiring.index)),
        ("slots after", with_values(np.arange(8), rewiring.index)),
    )
    numbers = table(slot=np.arange(8), rows=rewiring.index.rows, cols=rewiring.index.cols, old_slot=rewiring.old_slot)
    return f"{drawing}\n\n{numbers}"


@pytest.mark.parametrize("drawing", [storage, one_rewiring])
def test_the_drawing_is_what_the_code_does(drawing):
    expected = drawing()
    assert expected in TEXT, f"docs/ARCHITECTURE.md should show:\n\n{expected}"


def test_the_sections_that_the_code_points_to_exist():
    source = (Path(__file__).parent.parent / "sparsejax").rglob("*.py")
    sections = {line.removeprefix("## ") for line in TEXT.splitlines() if line.startswith("## ")}
    for path in source:
        for part in path.read_text().split("docs/ARCHITECTURE.md, section ")[1:]:
            name = part.split(")")[0].split(".")[0].strip()
            assert name in sections, f"{path.name} points to section {name!r}, which does not exist"
