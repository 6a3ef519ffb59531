"""The order in which thread blocks visit lines and token tiles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.kernels.gpu_lines import longest_first, place_and_tile
from sparsejax.kernels.lines import Lines


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


def test_two_lines_of_three_token_tiles_in_bands_of_two():
    assert visited(2, 3, 2) == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize(("lines", "tiles", "band"), [(1, 1, 1), (5, 7, 3), (4, 6, 2), (3, 4, 100)])
def test_every_line_visits_every_token_tile_once(lines, tiles, band):
    order = visited(lines, tiles, band)
    assert sorted(order) == [(line, tile) for line in range(lines) for tile in range(tiles)]
    bands = [tile // band for _, tile in order]
    assert bands == sorted(bands), "a band begins before the last one ended"
