"""``X^T gY`` for a list of blocks on Hopper, two blocks of one line at a time.

Axes: T tokens, K input width, N output width, blocks of bk x bn, P pairs of blocks.

    sums = x[part of the tokens, row]^T gy[part of the tokens, column]        for every block of the list

A thread block takes two neighbouring blocks of one line at once, one for each compute warpgroup. They share the slab
of activations of their line, so the pair reads three slabs instead of four. The last block of a line of odd length
has no partner: its second warpgroup rests.

A work item is (part of the tokens, pair); parts come first, so all thread blocks walk the same tokens at the same
time and a slab is read from memory once. What becomes of the float32 sums is the caller's: ``gpu_values`` keeps them,
``gpu_block_norms`` keeps their absolute values added up.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from sparsejax.kernels.gpu_tiles import ValueTiles
from sparsejax.kernels.gpu_warpgroups import Ref, Ring, barriers, launch, share_items, stage
from sparsejax.kernels.lines import Lines

# (sums [bk, bn] in registers, part of the tokens, slot of the block, the warpgroup's scratch, output) -> None
Finish = Callable[[jax.Array, jax.Array, jax.Array, Ref, Ref], None]


class Pairs(NamedTuple):
    """Pairs of neighbouring entries, line by line. A pair of one has ``second == first``.

    ``stops[l]`` is the number of pairs up to and with line l; ``stops[-1]`` of the P pairs exist.
    """

    stops: jax.Array  # [L]
    line: jax.Array  # [P]
    first: jax.Array  # [P]
    second: jax.Array  # [P]
    slot: jax.Array  # [n], of entries
    place: jax.Array  # [n], of entries


def pairs_of(lines: Lines) -> Pairs:
    """Every line cut into pairs from its start."""
    counts = lax.div(lines.stop - lines.start + 1, jnp.int32(2))
    stops = jnp.cumsum(counts, dtype=jnp.int32)
    # A line of c entries has (c + 1) // 2 pairs, so all lines together have at most this many.
    pair = jnp.arange((lines.slot.size + lines.start.size) // 2, dtype=jnp.int32)
    # Compared with all, because a binary search is a loop of small kernels.
    line = jnp.searchsorted(stops, pair, side="right", method="compare_all").astype(jnp.int32)
    line = jnp.minimum(line, lines.start.size - 1)
    first = lines.start[line] + 2 * (pair - (stops - counts)[line])
    second = jnp.minimum(first + 1, lines.stop[line] - 1)
    return Pairs(stops, line, first, second, lines.slot, lines.place)


@dataclasses.dataclass(frozen=True)
class PairProducts:
    """Everything static about the products of a list of blocks.

    Attributes:
      name: of the kernel.
      block: ``(bk, bn)``.
      tiles: see ``ValueTiles``.
      along_rows: the lines are block rows, whose blocks share a slab of x; else block columns, which share one of gy.
      output: shape and dtype of the result.
      scratch: shared memory in which ``finish`` stages what it writes, with a leading axis of warpgroups.
      finish: writes the sums of one block and one part of the tokens.
    """

    name: str
    block: tuple[int, int]
    tiles: ValueTiles
    along_rows: bool
    output: jax.ShapeDtypeStruct
    scratch: Any
    finish: Finish


def pair_products(x_TK: jax.Array, gy_TN: jax.Array, lines: Lines, products: PairProducts) -> jax.Array:
    """Run the products; places of the output that ``finish`` does not write hold anything.

    Args:
      x_TK: ``[T, K]`` bfloat16 or float16, T a multiple of 8.
      gy_TN: ``[T, N]`` of x's dtype.
      lines: the list of blocks.
      products: what to do with them.
    """
    pairs, tiles = pairs_of(lines), products.tiles
    blocks = min(pairs.line.size * tiles.splits, tiles.multiprocessors)
    shared, own = products.block if products.along_rows else products.block[::-1]
    kernel = launch(
        functools.partial(_body, products=products, blocks=blocks),
        name=products.name,
        blocks=blocks,
        warpgroups=tiles.warpgroups,
        output=products.output,
        scratch={
            "own_stages": stage((tiles.stages, tiles.warpgroups, tiles.tokens, own), x_TK.dtype),
            "shared_stages": stage((tiles.stages, tiles.tokens, shared), x_TK.dtype),
            "finish_scratch": products.scratch,
            **barriers(tiles.stages, copies=tiles.warpgroups + 1, warpgroups=tiles.warpgroups),
        },
    )
    return kernel(x_TK, gy_TN, pairs)


def _body(
    x: Ref,
    gy: Ref,
    pairs: Pairs,
    output: Ref,
    *,
    own_stages: Ref,
    shared_stages: Ref,
    finish_scratch: Ref,
    full: Ref,
    empty: Ref,
    products: PairProducts,
    blocks: int,
) -> None:
    ring, tiles = Ring(full, empty, products.tiles.stages), products.tiles
    block = _ThreadBlock(x, gy, pairs, output, own_stages, shared_stages, finish_scratch, ring, products)
    share_items(ring, block.total * tiles.splits, blocks, tiles.warpgroups, block.copy, block.multiply)


@dataclasses.dataclass(frozen=True)
class _ThreadBlock:
    """What a thread block sees: operands and output in device memory, its shared memory, its tiles."""

    x: Ref
    gy: Ref
    pairs: Pairs
    output: Ref
    own_stages: Ref
    shared_stages: Ref
    finish_scratch: Ref
    ring: Ring
    products: PairProducts

    @property
    def total(self) -> jax.Array:
        """How many pairs exist."""
        return self.pairs.stops[self.pairs.stops.shape[0] - 1]

    def _split_and_pair(self, item: jax.Array) -> tuple[jax.Array, jax.Array]:
        split = lax.div(item, self.total)
        return split, item - split * self.total

    def _steps(self, split: jax.Array) -> tuple[jax.Array, jax.Array]:
        """First step of a part of the tokens, and how many it has; 0 for a part behind the last token."""
        steps = pl.cdiv(self.x.shape[0], self.products.tiles.tokens)
        each = pl.cdiv(steps, self.products.tiles.splits)
        return split * each, lax.clamp(jnp.int32(0), steps - split * each, jnp.int32(each))

    def copy(self, item: jax.Array, step: jax.Array) -> jax.Array:
        """Memory warpgroup: for every step of tokens the slab of the line and the slabs of both blocks."""
        split, pair = self._split_and_pair(item)
        first, steps = self._steps(split)
        line, entries = self.pairs.line[pair], (self.pairs.first[pair], self.pairs.second[pair])
        places = [self.pairs.place[entry] for entry in entries]
        shared, own = (self.x, self.gy) if self.products.along_rows else (self.gy, self.x)
        rows = self.products.tiles.tokens

        def slab(activations: Ref, k: jax.Array, place: jax.Array, width: int) -> Ref:
            return activations.at[pl.ds(k * rows, rows), pl.ds(place * width, width)]

        def one(k: jax.Array, step: jax.Array) -> jax.Array:
            def copies(stage: jax.Array, full: Ref) -> None:
                to = self.shared_stages.at[stage]
                plgpu.copy_gmem_to_smem(slab(shared, k, line, to.shape[-1]), to, full)
                for w, place in enumerate(places):
                    to = self.own_stages.at[stage, w]
                    plgpu.copy_gmem_to_smem(slab(own, k, place, to.shape[-1]), to, full)

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

        def accumulate(sums: Ref) -> jax.Array:
            def product(stage: jax.Array) -> None:
                own, shared = self.own_stages.at[stage, warpgroup], self.shared_stages.at[stage]
                x, gy = (shared, own) if self.products.along_rows else (own, shared)
                plgpu.wgmma(sums, x.transpose((1, 0)), gy)

            self.ring.consume(step, steps, product)
            return sums[...]

        sums = pl.run_scoped(accumulate, plgpu.ACC(self.products.block, jnp.float32))
        self.products.finish(sums, split, slot, self.finish_scratch.at[warpgroup], self.output)
