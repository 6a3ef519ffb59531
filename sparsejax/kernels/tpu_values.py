"""The gradient of the values on TPU: the blocks of ``X^T gY`` at the active places.

Axes: T tokens, t tokens of a panel, K and N the widths, bk x bn the block, n slots, g slots of a pass.

The grid is (passes over the tokens, token panels). Panels ``[t, K]`` of X and ``[t, N]`` of gY are in VMEM together
with the float32 sums of the g slots of the pass; if all fit there is one pass. A step turns its panel of X once,
for all columns: the contraction over tokens then runs along the lanes of the left operand, as the matrix unit wants
it, and the rows of several blocks of a column are joined, so that a tile of gY that is loaded into the unit meets
many rows:

    [dV_1; ..; dV_r] += [X^T[place_1]; ..; X^T[place_r]] gY[:, column]        [r bk, t] x [t, bn]

Slots are in storage order, by column, so the result of a product is a run of consecutive slots, cut where a pass
ends. Free slots belong to no column and keep the zero that every sum starts from.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sparsejax.kernels.lines import StoredColumns
from sparsejax.kernels.tpu_tiles import ValueTiles


def value_gradient(
    x_TK: jax.Array,
    gy_TN: jax.Array,
    columns: StoredColumns,
    place: jax.Array,
    block: tuple[int, int],
    tiles: ValueTiles,
    *,
    name: str,
    part: int = 0,
    parts: int = 1,
) -> jax.Array:
    """The blocks of ``X^T gY`` at the active places.

    Args:
      x_TK: ``[T, K]``.
      gy_TN: ``[T, parts N]`` in the dtype of x, gradients of outputs of the same width side by side.
      columns: the block columns in storage order.
      place: ``[n]`` int32, the block row of every slot.
      block: ``(bk, bn)``.
      tiles: panel, unrolling and slots of a pass for these shapes.
      name: of the kernel in the compiled program.
      part: which of the outputs is the weight's.
      parts: how many there are.

    Returns:
      ``[n, bk, bn]`` float32, exactly 0 in free slots.
    """
    (T, K), N, n, (bk, bn) = x_TK.shape, gy_TN.shape[1] // parts, place.shape[0], block
    passes, panels = pl.cdiv(n, tiles.slots), pl.cdiv(T, tiles.tokens)
    grid_spec = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=6,
        grid=(passes, panels),
        in_specs=[
            pl.BlockSpec((tiles.tokens, K), lambda _pass, i, *_: (i, 0)),
            pl.BlockSpec((tiles.tokens, N), lambda _pass, i, *_: (i, part)),
        ],
        out_specs=pl.BlockSpec((tiles.slots, bk, bn), lambda j, _i, *_: (j, 0, 0)),
        scratch_shapes=[pltpu.VMEM((K, tiles.tokens), x_TK.dtype)],
    )
    size = x_TK.dtype.itemsize
    cost = pl.CostEstimate(
        flops=2 * T * n * bk * bn,
        bytes_accessed=passes * T * (K + N) * size + 4 * n * bk * bn,
        transcendentals=0,
    )
    kernel = functools.partial(_kernel, tiles=tiles, block=block, tail=T % tiles.tokens)
    return pl.pallas_call(
        kernel,
        grid_spec=grid_spec,
        out_shape=jax.ShapeDtypeStruct((n, bk, bn), jnp.float32),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=tiles.vmem_bytes
        ),
        cost_estimate=cost,
        name=name,
    )(*_columns_of_passes(columns, passes, tiles.slots), *columns, place, x_TK, gy_TN)


def _columns_of_passes(columns: StoredColumns, passes: int, slots: int) -> tuple[jax.Array, jax.Array]:
    """The first column with slots in each pass, and the one behind the last; ``[passes]`` int32 each."""
    begin = jnp.arange(passes, dtype=jnp.int32) * slots
    find = functools.partial(jnp.searchsorted, method="compare_all")
    first = find(columns.stop, begin, side="right").astype(jnp.int32)
    return first, find(columns.start, begin + slots, side="left").astype(jnp.int32)


def _kernel(
    first_ref: jax.Ref,
    after_ref: jax.Ref,
    start_ref: jax.Ref,
    stop_ref: jax.Ref,
    column_ref: jax.Ref,
    place_ref: jax.Ref,
    x_ref: jax.Ref,
    gy_ref: jax.Ref,
    gvalues_ref: jax.Ref,
    turned_ref: jax.Ref,
    *,
    tiles: ValueTiles,
    block: tuple[int, int],
    tail: int,
) -> None:
    (bk, bn), unroll = block, tiles.unroll
    this_pass, panel = pl.program_id(0), pl.program_id(1)
    offset = this_pass * tiles.slots

    @pl.when(panel == 0)
    def _start_from_zero() -> None:
        def clear(slot: jax.Array, carry: None) -> None:
            gvalues_ref[slot] = jnp.zeros(block, jnp.float32)
            return carry

        lax.fori_loop(0, tiles.slots, clear, None)

    def counted(activation: jax.Array) -> jax.Array:
        """Zero past the last token: what lies there is not data, and a contraction would take it in."""
        if not tail:
            return activation
        rows = jnp.where(panel == pl.num_programs(1) - 1, tail, tiles.tokens)
        return jnp.where(lax.broadcasted_iota(jnp.int32, activation.shape, 0) < rows, activation, 0)

    def turn(row: jax.Array, carry: None) -> None:
        here = pl.ds(pl.multiple_of(row * bk, bk), bk)
        turned_ref[here, :] = counted(x_ref[:, here]).T
        return carry

    lax.fori_loop(0, x_ref.shape[1] // bk, turn, None)

    def add_product(column: jax.Array, slot: jax.Array, blocks: int) -> None:
        rows = [pl.multiple_of(place_ref[slot + i] * bk, bk) for i in range(blocks)]
        x_rt = jnp.concatenate([turned_ref[pl.ds(row, bk), :] for row in rows], axis=0)
        gy_tn = counted(gy_ref[:, pl.ds(pl.multiple_of(column_ref[column] * bn, bn), bn)])
        sums = jnp.dot(x_rt, gy_tn, preferred_element_type=jnp.float32)
        gvalues_ref[pl.ds(slot - offset, blocks)] += sums.reshape(blocks, bk, bn)

    def add_column(column: jax.Array, carry: None) -> None:
        slot = jnp.maximum(start_ref[column], offset)
        count = jnp.minimum(stop_ref[column], offset + tiles.slots) - slot
        whole = lax.div(jnp.maximum(count - 1, 0), unroll)
        lax.fori_loop(0, whole, lambda i, _: add_product(column, slot + i * unroll, unroll), None)
        ends = [functools.partial(add_product, column, slot + whole * unroll, n) for n in range(1, unroll + 1)]
        lax.switch(count - whole * unroll, [lambda: None, *ends])
        return carry

    lax.fori_loop(first_ref[this_pass], after_ref[this_pass], add_column, None)
