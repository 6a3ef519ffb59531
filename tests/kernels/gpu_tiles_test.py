"""Tiles of the kernels for GPUs: worked examples, budgets, and what does not fit."""

from __future__ import annotations

import dataclasses
import itertools

import jax.numpy as jnp
import pytest

from sparsejax.hardware.chips import chip_named
from sparsejax.kernels.gpu_tiles import MULTIPROCESSORS, SIDES, line_tiles, pairs_along_rows, value_tiles
from sparsejax.kernels.pallas_gpu import CHIPS
from sparsejax.topology.blocks import BlockGrid

H200 = chip_named("h200")
UP = BlockGrid((2048, 5504), (128, 128))


def test_line_tiles_of_a_layer_of_1b():
    # A stage is 256 x 64 of x and 64 x 128 of a block, 48 KiB; staged output, 2 x 64 x 128, takes 32 of 227 - 3 KiB.
    tiles = line_tiles(H200, UP, jnp.bfloat16, transposed=False)
    assert (tiles.tokens, tiles.depth, tiles.stages, tiles.store_tokens) == (256, 64, 4, 64)
    # A token tile of x is 1 MiB, and 32 of them fit 40 MiB; of gY it is 2.7 MiB, and not even 16 do.
    assert tiles.band == 32
    assert line_tiles(H200, UP, jnp.bfloat16, transposed=True).band == 16


def test_a_rectangular_block_has_its_width_in_the_output():
    grid = BlockGrid((256, 512), (64, 128))
    # 256 x 64 of gY and 64 x 64 of a block: 40 KiB; staged output 16 KiB.
    assert line_tiles(H200, grid, jnp.bfloat16, transposed=True).stages == 5
    assert line_tiles(H200, grid, jnp.bfloat16, transposed=False).stages == 4


@pytest.mark.parametrize(("blocks", "splits"), [(688, 1), (344, 2), (172, 4), (86, 5), (43, 8)])
def test_splits_of_a_layer_of_1b(blocks, splits):
    # 172 blocks in 16 rows are at most 94 pairs; times 4 they are 376 items, three turns of 132 nearly full.
    tiles = value_tiles(H200, UP, jnp.bfloat16, tokens=8192, slots=blocks)
    assert tiles.splits == splits


@pytest.mark.parametrize("slots", [1, 7, 40, 132, 133, 264, 1000])
def test_splits_fill_two_waves_where_tokens_allow_it(slots):
    for tokens in (1, 64, 1000, 8192):
        splits = value_tiles(H200, UP, jnp.bfloat16, tokens=tokens, slots=slots).splits
        assert slots * splits >= 2 * MULTIPROCESSORS or splits == min(16, -(-tokens // 64))


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("block", list(itertools.product(SIDES, SIDES)))
def test_rings_fit_every_chip(chip, block):
    grid, budget = BlockGrid((1024, 2048), block), chip_named(chip).kernel_memory_bytes
    for transposed in (False, True):
        tiles, width = line_tiles(chip_named(chip), grid, jnp.float16, transposed=transposed), block[not transposed]
        ring = tiles.stages * (tiles.tokens + width) * tiles.depth * 2
        assert tiles.stages >= 4 and ring + tiles.warpgroups * tiles.store_tokens * width * 2 < budget
    tiles = value_tiles(chip_named(chip), grid, jnp.float16, tokens=512, slots=16)
    shared, own = block if pairs_along_rows(grid) else block[::-1]
    assert tiles.stages * (2 * own + shared) * tiles.tokens * 2 + 2 * 64 * 64 * 4 < budget


def test_too_little_shared_memory_is_an_error_of_one_line():
    small = dataclasses.replace(H200, name="small", kernel_memory_bytes=100 * 2**10)
    for choose in (
        lambda: line_tiles(small, UP, jnp.bfloat16, transposed=False),
        lambda: value_tiles(small, UP, jnp.bfloat16, tokens=8, slots=8),
    ):
        with pytest.raises(ValueError, match=r"^blocks of 128x128 take 134144 bytes .* small has 102400; use smaller"):
            choose()
