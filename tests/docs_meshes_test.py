"""The table of legal shares in docs/MESHES.md is what the size table says."""

import re
from pathlib import Path

import pytest

from sparsejax.models.sizes import SIZES, legal

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "MESHES.md").read_text(encoding="utf-8")
ROWS = {cells[0]: cells[1:] for cells in re.findall(r"^\| (\S+)" + 6 * r" \| (\S+)" + r" \|$", PAGE, re.MULTILINE)}
BLOCKS = (16, 32, 64, 128, 256)


def test_every_size_has_a_row():
    assert set(SIZES) == set(ROWS)


@pytest.mark.parametrize("name", SIZES)
def test_the_largest_legal_number_of_shares(name):
    size = SIZES[name]
    largest = {
        side: max(
            (cut.shards for cut in legal(size) if cut.block == (side, side) and size.heads % cut.shards == 0), default=0
        )
        for side in BLOCKS
    }
    assert ROWS[name] == (str(size.heads), *(str(largest[side] or "-") for side in BLOCKS))
