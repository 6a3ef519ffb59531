"""``gV`` on Hopper: the blocks of ``X^T gY`` at the active places.

Axes: T tokens, K input width, N output width, n slots of bk x bn values, P pairs of blocks.

    partial[s, slot] = x[part s of the tokens, row]^T gy[part s of the tokens, column]        gV = sum over s

A thread block takes two neighbouring blocks of one line at once, one for each compute warpgroup. They share the slab
of activations of their line, so the pair reads three slabs instead of four. The last block of a line of odd length
has no partner: its second warpgroup rests.

A work item is (part of the tokens, pair); parts come first, so all thread blocks walk the same tokens at the same
time and a slab is read from memory once. Sums are float32. Parts are added by a second pass in a fixed order:
the result does not depend on timing.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from sparsejax.kernels.gpu_tiles import ValueTiles
from sparsejax.kernels.gpu_warpgroups import Ref, Ring, barriers, launch, share_items, stage, store
from sparsejax.kernels.lines import Lines

# Side of the piece of its sums that a warpgroup stages on its way out.
_PIECE = 64


class Pairs(NamedTuple):
    """Pairs of neighbouring entries; only the first ``total`` exist. A pair of one has ``second == first``."""

    total: jax.Array  # [1]
    line: jax.Array  # [P]
    first: jax.Array  # [P]
    second: jax.Array  # [P]
    slot: jax.Array  # [n], of entries
    place: jax.Array  # [n], of entries


def pairs_of(lines: Lines) -> Pairs:
    """Every line cut into pairs from its start."""
    counts = lax.div(lines.stop - lines.start + 1, jnp.int32(2))
    stops = jnp.cumsum(counts)
    # A line of c entries has (c + 1) // 2 pairs, so all lines together have at most this many.
    pair = jnp.arange((lines.slot.size + lines.start.size) // 2, dtype=jnp.int32)
    line = jnp.searchsorted(stops, pair, side="right").astype(jnp.int32)
    line = jnp.minimum(line, lines.start.size - 1)
    first = lines.start[line] + 2 * (pair - (stops - counts)[line])
    second = jnp.minimum(first + 1, lines.stop[line] - 1)
    return Pairs(stops[-1:].astype(jnp.int32), line, first, second, lines.slot, lines.place)


def value_gradient(
    x_TK: jax.Array, gy_TN: jax.Array, lines: Lines, block: tuple[int, int], tiles: ValueTiles, *, along_rows: bool
) -> jax.Array:
    """The gradient of the values.

    Args:
      x_TK: ``[T, K]`` bfloat16 or float16, T a multiple of 8.
      gy_TN: ``[T, N]`` of x's dtype.
      lines: block rows if ``along_rows``, else block columns.
      block: ``(bk, bn)``.
      tiles: see ``ValueTiles``.
      along_rows: pair the blocks of a row.

    Returns:
      ``[n, bk, bn]`` float32. Free slots hold anything: nothing was written there.
    """
    pairs = pairs_of(lines)
    items = pairs.line.size * tiles.splits
    blocks = min(items, tiles.multiprocessors)
    shared, own = block if along_rows else block[::-1]
    kernel = launch(
        functools.partial(_body, tiles=tiles, along_rows=along_rows, blocks=blocks),
        name="block_values",
        blocks=blocks,
        warpgroups=tiles.warpgroups,
        output=jax.ShapeDtypeStruct((tiles.splits, lines.slot.size, *block), jnp.float32),
        scratch={
            "own_stages": stage((tiles.stages, tiles.warpgroups, tiles.tokens, own), x_TK.dtype),
            "shared_stages": stage((tiles.stages, tiles.tokens, shared), x_TK.dtype),
            "piece": stage((tiles.warpgroups, _PIECE, _PIECE), jnp.float32),
            **barriers(tiles.stages, copies=tiles.warpgroups + 1, warpgroups=tiles.warpgroups),
        },
    )
    partial = kernel(x_TK, gy_TN, pairs)
    # Written out, because the order of a reduction is the compiler's choice.
    return functools.reduce(jnp.add, [partial[split] for split in range(tiles.splits)])


def _body(
    x: Ref,
    gy: Ref,
    pairs: Pairs,
    partial: Ref,
    *,
    own_stages: Ref,
    shared_stages: Ref,
    piece: Ref,
    full: Ref,
    empty: Ref,
    tiles: ValueTiles,
    along_rows: bool,
    blocks: int,
) -> None:
    ring = Ring(full, empty, tiles.stages)
    block = _ThreadBlock(x, gy, pairs, partial, own_stages, shared_stages, piece, ring, tiles, along_rows)
    share_items(ring, block.total * tiles.splits, blocks, tiles.warpgroups, block.copy, block.multiply)


@dataclasses.dataclass(frozen=True)
class _ThreadBlock:
    """What a thread block sees: operands and output in device memory, its shared memory, its tiles."""

    x: Ref
    gy: Ref
    pairs: Pairs
    partial: Ref
    own_stages: Ref
    shared_stages: Ref
    piece: Ref
    ring: Ring
    tiles: ValueTiles
    along_rows: bool

    @property
    def total(self) -> jax.Array:
        """How many pairs exist."""
        return self.pairs.total[0]

    def _split_and_pair(self, item: jax.Array) -> tuple[jax.Array, jax.Array]:
        split = lax.div(item, self.total)
        return split, item - split * self.total

    def _steps(self, split: jax.Array) -> tuple[jax.Array, jax.Array]:
        """First step of a part of the tokens, and how many it has; 0 for a part behind the last token."""
        steps = pl.cdiv(self.x.shape[0], self.tiles.tokens)
        each = pl.cdiv(steps, self.tiles.splits)
        return split * each, lax.clamp(jnp.int32(0), steps - split * each, jnp.int32(each))

    def copy(self, item: jax.Array, step: jax.Array) -> jax.Array:
        """Memory warpgroup: for every step of tokens the slab of the line and the slabs of both blocks."""
        split, pair = self._split_and_pair(item)
        first, steps = self._steps(split)
        line, entries = self.pairs.line[pair], (self.pairs.first[pair], self.pairs.second[pair])
        places = [self.pairs.place[entry] for entry in entries]
        shared, own = (self.x, self.gy) if self.along_rows else (self.gy, self.x)

        def slab(activations: Ref, tokens: jax.Array, place: jax.Array, width: int) -> Ref:
            return activations.at[pl.ds(tokens, self.tiles.tokens), pl.ds(place * width, width)]

        def one(k: jax.Array, step: jax.Array) -> jax.Array:
            def copies(stage: jax.Array, full: Ref) -> None:
                tokens = k * self.tiles.tokens
                to = self.shared_stages.at[stage]
                plgpu.copy_gmem_to_smem(slab(shared, tokens, line, to.shape[-1]), to, full)
                for w, place in enumerate(places):
                    to = self.own_stages.at[stage, w]
                    plgpu.copy_gmem_to_smem(slab(own, tokens, place, to.shape[-1]), to, full)

            self.ring.fill(step, copies)
            return step + 1

        return lax.fori_loop(first, first + steps, one, step)

    def multiply(self, item: jax.Array, step: jax.Array) -> jax.Array:
        """A compute warpgroup: its block of the pair, or nothing if the pair has one block and this is the second."""
        split, pair = self._split_and_pair(item)
        _, steps = self._steps(split)
        first, second = self.pairs.first[pair], self.pairs.second[pair]
        has_block = (lax.axis_index("warpgroup") == 0) | (second > first)
        lax.cond(
            has_block,
            lambda: self._block(split, first, second, step, steps),
            lambda: self.ring.skip(step, steps),
        )
        return step + steps

    def _block(self, split: jax.Array, first: jax.Array, second: jax.Array, step: jax.Array, steps: jax.Array) -> None:
        warpgroup = lax.axis_index("warpgroup")
        slot = self.pairs.slot[jnp.where(warpgroup == 0, first, second)]
        bk, bn = self.partial.shape[-2:]

        def accumulate(sums: Ref) -> jax.Array:
            def product(stage: jax.Array) -> None:
                own, shared = self.own_stages.at[stage, warpgroup], self.shared_stages.at[stage]
                x, gy = (shared, own) if self.along_rows else (own, shared)
                plgpu.wgmma(sums, x.transpose((1, 0)), gy)

            self.ring.consume(step, steps, product)
            return sums[...]

        sums = pl.run_scoped(accumulate, plgpu.ACC((bk, bn), jnp.float32))
        for r in range(0, bk, _PIECE):
            for c in range(0, bn, _PIECE):
                target = self.partial.at[split, slot, pl.ds(r, _PIECE), pl.ds(c, _PIECE)]
                store(self.piece.at[warpgroup], sums[r : r + _PIECE, c : c + _PIECE], target)
