"""Pairs of blocks, the work items of gV: one drawing, then every kind of weight."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.kernels.gpu_pairs import pairs_of
from sparsejax.kernels.lines import Lines, column_lines, row_lines
from tests.kernels.cases import CASES, make_weight


def test_pairs_drawn():
    # Lines of 3, 0, 1 and 2 entries, with a gap of one entry (a free slot) before the last.
    start, stop = jnp.array([0, 3, 3, 5], jnp.int32), jnp.array([3, 3, 4, 7], jnp.int32)
    entries = jnp.arange(8, dtype=jnp.int32)
    pairs = jax.jit(pairs_of)(Lines(start, stop, entries, entries))
    assert pairs.stops.tolist() == [2, 2, 3, 4]
    assert pairs.line[:4].tolist() == [0, 0, 2, 3]
    assert pairs.first[:4].tolist() == [0, 2, 3, 5]
    assert pairs.second[:4].tolist() == [1, 2, 3, 6]


@pytest.mark.parametrize("lines_of", [column_lines, row_lines])
@pytest.mark.parametrize("case", ["column_shares", "row_shares"])
def test_every_active_block_is_in_one_pair(case, lines_of):
    weight = make_weight(CASES[case], seed=1)
    lines = jax.jit(lines_of, static_argnums=1)(weight.index, weight.grid)
    pairs = jax.jit(pairs_of)(lines)
    total = int(pairs.stops[-1])
    assert total <= pairs.line.size
    first, second = (np.asarray(entries)[:total] for entries in (pairs.first, pairs.second))
    visited = np.concatenate([first, second[second > first]])
    active = np.concatenate([np.arange(a, b) for a, b in zip(lines.start, lines.stop, strict=True)])
    assert sorted(visited) == sorted(active)
    line = np.asarray(pairs.line)[:total]
    assert np.all(np.asarray(lines.start)[line] <= first) and np.all(second < np.asarray(lines.stop)[line])
