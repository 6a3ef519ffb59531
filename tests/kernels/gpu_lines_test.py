"""The order in which thread blocks visit lines and token tiles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.hardware.chips import chip_named
from sparsejax.kernels.gpu_lines import longest_first, place_and_tile
from sparsejax.kernels.gpu_tiles import line_tiles
from sparsejax.kernels.gpu_warpgroups import item_of
from sparsejax.kernels.lines import Lines
from sparsejax.topology.blocks import BlockGrid


def test_the_longest_line_comes_first():
    start, stop = jnp.array([0, 2, 2, 6], jnp.int32), jnp.array([2, 2, 6, 7], jnp.int32)
    entries = np.arange(8, dtype=np.int32)
    schedule = jax.jit(longest_first)(Lines(start, stop, entries, entries))
    assert schedule.line.tolist() == [2, 0, 3, 1]
    assert schedule.first.tolist() == [2, 0, 6, 2]
    assert schedule.length.tolist() == [4, 2, 1, 0]


def visited(lines: int, tiles: int, band: int) -> list[tuple[int, int]]:
    items = jnp.arange(lines * tiles, dtype=jnp.int32)
    each = jax.jit(jax.vmap(lambda item: place_and_tile(item, lines, tiles, band)))(items)
    return list(zip(*(np.asarray(x).tolist() for x in each), strict=True))


def test_three_lines_of_three_token_tiles_in_bands_of_two():
    # The last band falls from the longest line, the one before it rises from the shortest.
    assert visited(3, 3, 2) == [(2, 0), (2, 1), (1, 0), (1, 1), (0, 0), (0, 1), (0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(("lines", "tiles", "band"), [(1, 1, 1), (5, 7, 3), (4, 6, 2), (3, 4, 100)])
def test_every_line_visits_every_token_tile_once(lines, tiles, band):
    order = visited(lines, tiles, band)
    assert sorted(order) == [(line, tile) for line in range(lines) for tile in range(tiles)]
    bands = [tile // band for _, tile in order]
    assert bands == sorted(bands), "a band begins before the last one ended"


# Without the way back the first has 1.2 times its part, without bands that rise and fall the second.
@pytest.mark.parametrize(("width", "tokens", "along_rows"), [(2048, 8192, False), (5504, 16384, True)])
def test_thread_blocks_have_equal_shares_of_layers_of_1b(width, tokens, along_rows):
    grid = BlockGrid((2048, width), (128, 128))
    active = np.random.default_rng(0).permutation(grid.cells) < grid.cells / 8
    lengths = np.sort(active.reshape(grid.rows, grid.columns).sum(axis=int(along_rows)))[::-1]
    tiles = line_tiles(chip_named("h200"), grid, jnp.bfloat16, transposed=along_rows)
    # An item costs its blocks, and half a block for the writing of its output.
    costs = [lengths[place] + 0.5 for place, _ in visited(lengths.size, tokens // tiles.tokens, tiles.band)]
    blocks, work = tiles.multiprocessors, np.zeros(tiles.multiprocessors)
    shared = jax.jit(jax.vmap(lambda turn, block: item_of(turn, block, blocks)))
    turn, block = np.divmod(np.arange(-(-len(costs) // blocks) * blocks, dtype=np.int32), np.int32(blocks))
    for item, owner in zip(np.asarray(shared(turn, block)).tolist(), block, strict=True):
        work[owner] += costs[item] if item < len(costs) else 0
    assert work.max() < 1.15 * work.mean()
