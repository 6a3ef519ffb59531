"""``Y = X W`` and ``gX = gY W^T`` on Hopper: an output tile is one token tile of one line of blocks.

Axes: T tokens, C the contracted width, L lines of blocks, n slots of bk x bn values. A line is a block column for Y
and a block row for gX, whose blocks are read through a transposed view of shared memory: there is no stored W^T.

    out[t, l] = sum over entries e of line l of  in[t, place[e]] block(e)        block(e) = V[slot[e]] or V[slot[e]]^T

Sums are float32 in registers and rounded once. Every output tile is written, those of empty lines with zeros.

A work item is (token tile, line). Inside a band of token tiles lines follow each other by length, each with all token
tiles of the band: neighbours share their blocks, and the band's activations stay near while all lines visit them. The
last band begins with its longest line, so that what runs last is short; bands before it fall and rise in turn, so that
lengths never jump. Thread blocks take items there and back again (``gpu_warpgroups.item_of``). In layers of 1b and 7b
with random topologies that leaves the busiest with 1 to 10 % more than its part (counted, not timed).
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

from sparsejax.kernels.gpu_tiles import LineTiles
from sparsejax.kernels.gpu_warpgroups import Ref, Ring, barriers, launch, share_items, stage, store
from sparsejax.kernels.lines import Lines


class Schedule(NamedTuple):
    """Lines by falling length: line ``line[i]`` has the ``length[i]`` entries from ``first[i]``."""

    line: jax.Array
    first: jax.Array
    length: jax.Array
    slot: jax.Array
    place: jax.Array


def longest_first(lines: Lines) -> Schedule:
    """The lines by falling length; equal ones stay in order.

    Lines are few, so all are compared with all: two small fusions where a sort takes three, before every product.
    """
    length = lines.stop - lines.start
    line = jnp.arange(length.size, dtype=jnp.int32)
    longer = length > length[:, None]
    tied_before = (length == length[:, None]) & (line < line[:, None])
    place = jnp.sum(longer | tied_before, axis=1, dtype=jnp.int32)

    def placed(of_line: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(place == line[:, None], of_line, 0), axis=1, dtype=jnp.int32)

    return Schedule(placed(line), placed(lines.start), placed(length), lines.slot, lines.place)


def place_and_tile(item: jax.Array, lines: int, tiles: int, band: int) -> tuple[jax.Array, jax.Array]:
    """Work item -> place of its line in the schedule, and its token tile: by band, then line, then token tile."""
    index = lax.div(item, jnp.int32(lines * band))
    in_band = lax.min(tiles - index * band, jnp.int32(band))
    inside = item - index * (lines * band)
    place = lax.div(inside, in_band)
    upwards = lax.rem(pl.cdiv(tiles, band) - 1 - index, jnp.int32(2)) == 1
    return jnp.where(upwards, lines - 1 - place, place), index * band + lax.rem(inside, in_band)


def line_product(x_TC: jax.Array, values: jax.Array, lines: Lines, tiles: LineTiles, *, transposed: bool) -> jax.Array:
    """The product of activations with a weight, line by line.

    Args:
      x_TC: ``[T, C]`` bfloat16 or float16, T a multiple of 8.
      values: ``[n, bk, bn]`` of x's dtype.
      lines: block columns, or block rows if ``transposed``.
      tiles: see ``LineTiles``.
      transposed: multiply by the transposed blocks (gX).

    Returns:
      ``[T, L * bn]``, or ``[T, L * bk]`` if ``transposed``, in x's dtype.
    """
    width = values.shape[1 if transposed else 2]
    items = lines.start.size * pl.cdiv(x_TC.shape[0], tiles.tokens)
    blocks = min(items, tiles.multiprocessors)
    body = functools.partial(_body, tiles=tiles, transposed=transposed, items=items, blocks=blocks)
    block_part = (width, tiles.depth) if transposed else (tiles.depth, width)
    kernel = launch(
        body,
        name="block_rows" if transposed else "block_columns",
        blocks=blocks,
        warpgroups=tiles.warpgroups,
        output=jax.ShapeDtypeStruct((x_TC.shape[0], lines.start.size * width), x_TC.dtype),
        scratch={
            "x_stages": stage((tiles.stages, tiles.warpgroups, tiles.warpgroup_tokens, tiles.depth), x_TC.dtype),
            "v_stages": stage((tiles.stages, *block_part), x_TC.dtype),
            "y_stage": stage((tiles.warpgroups, tiles.store_tokens, width), x_TC.dtype),
            **barriers(tiles.stages, copies=tiles.warpgroups + 1, warpgroups=tiles.warpgroups),
        },
    )
    return kernel(x_TC, values, longest_first(lines))


def _body(
    x: Ref,
    values: Ref,
    schedule: Schedule,
    y: Ref,
    *,
    x_stages: Ref,
    v_stages: Ref,
    y_stage: Ref,
    full: Ref,
    empty: Ref,
    tiles: LineTiles,
    transposed: bool,
    items: int,
    blocks: int,
) -> None:
    ring = Ring(full, empty, tiles.stages)
    block = _ThreadBlock(x, values, schedule, y, x_stages, v_stages, y_stage, ring, tiles, transposed, items)
    share_items(ring, items, blocks, tiles.warpgroups, block.copy, block.multiply)


@dataclasses.dataclass(frozen=True)
class _ThreadBlock:
    """What a thread block sees: operands and output in device memory, its shared memory, its tiles."""

    x: Ref
    values: Ref
    schedule: Schedule
    y: Ref
    x_stages: Ref
    v_stages: Ref
    y_stage: Ref
    ring: Ring
    tiles: LineTiles
    transposed: bool
    items: int

    def _place_and_token(self, item: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Place of the item's line in the schedule, and its first token."""
        lines = self.schedule.line.shape[0]
        place, tile = place_and_tile(item, lines, self.items // lines, self.tiles.band)
        return place, tile * self.tiles.tokens

    def _parts(self) -> int:
        """Steps a block takes."""
        return self.values.shape[2 if self.transposed else 1] // self.tiles.depth

    def copy(self, item: jax.Array, step: jax.Array) -> jax.Array:
        """Memory warpgroup: for every entry of the line its slab of x, and its block, in steps of ``tiles.depth``."""
        place, token = self._place_and_token(item)
        first, depth, rows = self.schedule.first[place], self.tiles.depth, self.tiles.warpgroup_tokens

        def entry(e: jax.Array, step: jax.Array) -> jax.Array:
            slot, across = self.schedule.slot[e], self.schedule.place[e] * (self._parts() * depth)

            def copies(part: int, stage: jax.Array, full: Ref) -> None:
                for w in range(self.tiles.warpgroups):
                    x = self.x.at[pl.ds(token + w * rows, rows), pl.ds(across + part * depth, depth)]
                    plgpu.copy_gmem_to_smem(x, self.x_stages.at[stage, w], full)
                along = pl.ds(part * depth, depth)
                block = self.values.at[slot, :, along] if self.transposed else self.values.at[slot, along, :]
                plgpu.copy_gmem_to_smem(block, self.v_stages.at[stage], full)

            for part in range(self._parts()):
                self.ring.fill(step + part, functools.partial(copies, part))
            return step + self._parts()

        return lax.fori_loop(first, first + self.schedule.length[place], entry, step)

    def multiply(self, item: jax.Array, step: jax.Array) -> jax.Array:
        """A compute warpgroup: its half of the tokens of the output tile."""
        warpgroup, rows = lax.axis_index("warpgroup"), self.tiles.warpgroup_tokens
        place, token = self._place_and_token(item)
        line, steps = self.schedule.line[place], self.schedule.length[place] * self._parts()
        width = self.y_stage.shape[-1]

        def accumulate(sums: Ref) -> jax.Array:
            def product(stage: jax.Array) -> None:
                block = self.v_stages.at[stage]
                block = block.transpose((1, 0)) if self.transposed else block
                plgpu.wgmma(sums, self.x_stages.at[stage, warpgroup], block)

            self.ring.consume(step, steps, product)
            return sums[...]

        y = pl.run_scoped(accumulate, plgpu.ACC((rows, width), jnp.float32)).astype(self.y.dtype)
        for r in range(0, rows, self.tiles.store_tokens):
            target = pl.ds(token + warpgroup * rows + r, self.tiles.store_tokens), pl.ds(line * width, width)
            store(self.y_stage.at[warpgroup], y[r : r + self.tiles.store_tokens], self.y.at[target])
        return step + steps
