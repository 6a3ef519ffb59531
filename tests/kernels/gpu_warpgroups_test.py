"""How thread blocks share work items; barriers and copies are tested by the kernels in the interpreter."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from sparsejax.kernels.gpu_warpgroups import item_of, turns_of


def items(block: int, count: int, blocks: int) -> list[int]:
    turns = int(turns_of(jnp.int32(block), jnp.int32(count), blocks))
    return [int(item_of(jnp.int32(turn), jnp.int32(block), blocks)) for turn in range(turns)]


def test_three_blocks_share_eight_items_there_and_back_again():
    assert [items(block, 8, 3) for block in range(3)] == [[0, 5, 6], [1, 4, 7], [2, 3]]


@pytest.mark.parametrize(("count", "blocks"), [(0, 2), (1, 4), (5, 4), (7, 4), (8, 4)])
def test_every_item_has_one_block(count, blocks):
    assert sorted(item for block in range(blocks) for item in items(block, count, blocks)) == list(range(count))
