"""Tiles of the Hopper kernels: what one thread block holds, chosen from chip, grid and dtype before compiling.

One thread block of two compute warpgroups and a memory warpgroup fills a multiprocessor. Sizes follow from three
budgets; not one of them was tuned on hardware yet:

* Registers. A compute warpgroup holds its float32 sums: 128 x 128 of them are 128 registers a thread, of 232.
* Shared memory. A step moves 64 elements of the contraction, 128 bytes, the least that full-width tensor copies move;
  the ring takes as many stages as fit.
* Second-level cache, 50 MB. Token tiles are visited in bands whose activations should stay in it (``LineTiles.band``).
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax.typing import DTypeLike

from sparsejax.hardware.chips import Chip
from sparsejax.topology.blocks import BlockGrid

# Sides of blocks that have tiles: smaller ones do not fill a tensor-core product, larger ones the registers overflow.
SIDES = (64, 128)
# An H100 or H200 in its SXM form. Kernels start at most this many thread blocks, and more items wait in turns.
MULTIPROCESSORS = 132

_WARPGROUPS = 2
_STEP = 64
# Side of the pieces in which tiles leave the registers, through shared memory.
STORED = 64
# Token tiles of a band: the first whose activations fit most of the second-level cache. More are shared out better.
_BANDS = (32, 16)
_BAND_BYTES = 40 * 2**20
# Barriers and the compiler's own scratch.
_RESERVED_BYTES = 3 * 1024
# Deeper rings than this hide no further latency.
_MOST_STAGES = 8
# With one stage the copies of a step would wait for the products of the last.
_FEWEST_STAGES = 2
# Token splits of gV beyond this cost more in partial sums than they win in balance.
_MOST_SPLITS = 16


@dataclasses.dataclass(frozen=True)
class LineTiles:
    """Tiles of ``Y = X W`` and ``gX = gY W^T``.

    Attributes:
      tokens: tokens of an output tile; every compute warpgroup has an equal part.
      depth: elements of the contraction in a step.
      stages: steps in the ring.
      store_tokens: tokens of a warpgroup that are staged at once on their way out.
      band: token tiles that all lines visit before the next band begins.
      multiprocessors: thread blocks at most.
      warpgroups: compute warpgroups.
    """

    tokens: int
    depth: int
    stages: int
    store_tokens: int
    band: int
    multiprocessors: int = MULTIPROCESSORS
    warpgroups: int = _WARPGROUPS

    @property
    def warpgroup_tokens(self) -> int:
        """Tokens of one compute warpgroup."""
        return self.tokens // self.warpgroups


@dataclasses.dataclass(frozen=True)
class ValueTiles:
    """Tiles of ``gV``.

    Attributes:
      tokens: tokens of a step.
      stages: steps in the ring.
      splits: parts the tokens are cut into; every part gives a partial sum of every block.
      multiprocessors: thread blocks at most.
      warpgroups: compute warpgroups, each with a block of its own.
    """

    tokens: int
    stages: int
    splits: int
    multiprocessors: int = MULTIPROCESSORS
    warpgroups: int = _WARPGROUPS


def line_tiles(chip: Chip, grid: BlockGrid, dtype: DTypeLike, *, transposed: bool) -> LineTiles:
    """Tiles for Y, or for gX if ``transposed``.

    Raises:
      ValueError: fewer than two stages fit the shared memory of a thread block of the chip.
    """
    itemsize = jnp.dtype(dtype).itemsize
    width = grid.block[0 if transposed else 1]
    contracted = grid.shape[1 if transposed else 0]
    tokens = _WARPGROUPS * 128
    stages = _stages(
        chip,
        grid,
        stage_bytes=(tokens + width) * _STEP * itemsize,
        stored_bytes=_WARPGROUPS * STORED * width * itemsize,
    )
    band = next((band for band in _BANDS if band * tokens * contracted * itemsize <= _BAND_BYTES), _BANDS[-1])
    return LineTiles(tokens, _STEP, stages, STORED, band)


def value_tiles(chip: Chip, grid: BlockGrid, dtype: DTypeLike, *, tokens: int, slots: int) -> ValueTiles:
    """Tiles for gV of ``slots`` blocks over ``tokens`` tokens.

    Raises:
      ValueError: fewer than two stages fit the shared memory of a thread block of the chip.
    """
    itemsize = jnp.dtype(dtype).itemsize
    shared, own = grid.block if pairs_along_rows(grid) else grid.block[::-1]
    stages = _stages(
        chip,
        grid,
        stage_bytes=(_WARPGROUPS * own + shared) * _STEP * itemsize,
        stored_bytes=_WARPGROUPS * STORED * STORED * 4,
    )
    return ValueTiles(_STEP, stages, _splits(chip, grid, tokens, slots))


def pairs_along_rows(grid: BlockGrid) -> bool:
    """Whether gV pairs the blocks of a row (which share a slab of X) or of a column: along the fewer, longer lines."""
    return grid.rows <= grid.columns


def _stages(chip: Chip, grid: BlockGrid, *, stage_bytes: int, stored_bytes: int) -> int:
    fixed = stored_bytes + _RESERVED_BYTES
    stages = min((chip.kernel_memory_bytes - fixed) // stage_bytes, _MOST_STAGES)
    if stages < _FEWEST_STAGES:
        least = fixed + _FEWEST_STAGES * stage_bytes
        raise ValueError(
            f"blocks of {grid.block[0]}x{grid.block[1]} take {least} bytes of shared memory a thread block; "
            f"{chip.name} has {chip.kernel_memory_bytes}; use smaller blocks"
        )
    return stages


def _splits(chip: Chip, grid: BlockGrid, tokens: int, slots: int) -> int:
    """Into how many parts to cut the tokens: the cheapest number that gives every multiprocessor two work items.

    A work item is one block and one part; thread blocks take them in pairs, at most one half empty a line. The cost is
    the time of the busiest multiprocessor at the chip's peak if every line has such a half pair, and that of writing
    and adding partial sums at the chip's bandwidth, which one part has no need of.
    """
    (bk, bn), steps = grid.block, -(-tokens // _STEP)
    pairs = (slots + min(grid.rows, grid.columns)) // _WARPGROUPS
    step_seconds = _WARPGROUPS * 2 * _STEP * bk * bn * MULTIPROCESSORS / chip.peak_flops
    block_seconds = slots * bk * bn * 4 / chip.memory_bandwidth

    def seconds(splits: int) -> float:
        turns = -(-pairs * splits // MULTIPROCESSORS)
        return turns * -(-steps // splits) * step_seconds + block_seconds * (2 * splits if splits > 1 else 0)

    legal = range(1, min(_MOST_SPLITS, steps) + 1)
    filling = [splits for splits in legal if slots * splits >= 2 * MULTIPROCESSORS]
    return min(filling, key=seconds) if filling else legal[-1]
