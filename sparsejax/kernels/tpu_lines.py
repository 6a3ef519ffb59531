"""The line product on TPU: ``Y = X W`` column by column and ``gX = gY W^T`` row by row, one kernel for both.

Axes: T tokens, t tokens of a panel, A width of the activations, s width of a line, c width of a block across lines.

The grid is (token panels, groups of lines). A panel ``[t, A]`` of the activations stays in VMEM while all lines pass
over it, and all values stay there for the whole product: nothing is read twice. A grid step makes the outputs of a
few lines, one after another, each ``[t, s]`` a product over the line's blocks, joined along the contraction:

    tile = [panel[:, place_1] .. panel[:, place_r]] [V_1; ..; V_r]        [t, r c] x [r c, s]

For a row the blocks are joined along their columns and contracted there: no transposed values exist. A line of up to
``unroll`` blocks is one product, chosen by its count among products of fixed size, because a loop over blocks would
leave the matrix units idle at both its ends. A longer line sums products of ``unroll`` blocks in VMEM first and ends
the same way. A line without blocks writes zeros, so every output is written. Tokens past T are rows of their own
and are cut off by the copy out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sparsejax.kernels.lines import Lines
from sparsejax.kernels.tpu_tiles import LineTiles


def line_product(
    x_TA: jax.Array, values: jax.Array, lines: Lines, tiles: LineTiles, *, by_row: bool, name: str
) -> jax.Array:
    """The product of activations with every line of a weight.

    Args:
      x_TA: ``[T, A]``; ``X`` for columns, ``gY`` for rows.
      values: ``[n, bk, bn]`` in the dtype of x.
      lines: the columns or the rows of the weight.
      tiles: panel and unrolling for these shapes.
      by_row: whether lines are rows, so that blocks are contracted over their columns.
      name: of the kernel in the compiled program.

    Returns:
      ``[T, L s]`` in the dtype of x, summed in float32.
    """
    (T, A), (n, bk, bn) = x_TA.shape, values.shape
    side = bk if by_row else bn
    count = lines.start.shape[0]
    panels = pl.cdiv(T, tiles.tokens)
    grid_spec = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=4,
        grid=(panels, pl.cdiv(count, tiles.lines)),
        in_specs=[
            pl.BlockSpec((tiles.tokens, A), lambda i, _group, *_: (i, 0)),
            pl.BlockSpec(memory_space=pltpu.VMEM),
        ],
        out_specs=pl.BlockSpec((tiles.tokens, tiles.lines * side), lambda i, group, *_: (i, group)),
        scratch_shapes=[pltpu.VMEM((tiles.tokens, side), jnp.float32)],
    )
    size = x_TA.dtype.itemsize
    cost = pl.CostEstimate(
        flops=2 * T * n * bk * bn,
        bytes_accessed=(x_TA.size + values.size + T * count * side) * size,
        transcendentals=0,
    )
    kernel = functools.partial(_kernel, tiles=tiles, count=count, block=(bk, bn), by_row=by_row)
    return pl.pallas_call(
        kernel,
        grid_spec=grid_spec,
        out_shape=jax.ShapeDtypeStruct((T, count * side), x_TA.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=tiles.vmem_bytes
        ),
        cost_estimate=cost,
        name=name,
    )(*lines, x_TA, values)


def one_of(case: jax.Array, bodies: Sequence[Callable[[], None]]) -> None:
    """Run ``bodies[case]``; halving finds it in fewer branches than the chain of comparisons of ``lax.switch``."""
    if len(bodies) == 1:
        bodies[0]()
        return
    middle = len(bodies) // 2
    lax.cond(case < middle, lambda: one_of(case, bodies[:middle]), lambda: one_of(case - middle, bodies[middle:]))


def _kernel(
    start_ref: jax.Ref,
    stop_ref: jax.Ref,
    slot_ref: jax.Ref,
    place_ref: jax.Ref,
    x_ref: jax.Ref,
    values_ref: jax.Ref,
    y_ref: jax.Ref,
    sum_ref: jax.Ref,
    *,
    tiles: LineTiles,
    count: int,
    block: tuple[int, int],
    by_row: bool,
) -> None:
    (side, across), unroll = (block if by_row else block[::-1]), tiles.unroll
    group = pl.program_id(1) * tiles.lines

    def product(entry: jax.Array, blocks: int) -> jax.Array:
        """The sum over ``blocks`` consecutive entries, ``[t, s]`` float32."""
        entries = [entry + i for i in range(blocks)]
        panels = [x_ref[:, pl.ds(pl.multiple_of(place_ref[e] * across, across), across)] for e in entries]
        weights = [values_ref[slot_ref[e]] for e in entries]
        return lax.dot_general(
            jnp.concatenate(panels, axis=1),
            jnp.concatenate(weights, axis=1 if by_row else 0),
            (((1,), (1 if by_row else 0,)), ((), ())),
            preferred_element_type=jnp.float32,
        )

    def make_line(i: jax.Array, carry: None) -> None:
        first = start_ref[group + i]
        blocks = stop_ref[group + i] - first
        here = pl.ds(pl.multiple_of(i * side, side), side)
        # All but the last 1 to `unroll` blocks of a long line.
        whole = lax.div(jnp.maximum(blocks - 1, 0), unroll)
        summed = whole > 0

        @pl.when(summed)
        def _sum_whole_products() -> None:
            sum_ref[...] = product(first, unroll)

            def add(j: jax.Array, carry: None) -> None:
                sum_ref[...] += product(first + j * unroll, unroll)
                return carry

            lax.fori_loop(1, whole, add, None)

        def end_with(blocks: int) -> None:
            if blocks == 0:
                y_ref[:, here] = jnp.zeros(sum_ref.shape, y_ref.dtype)
                return
            last = product(first + whole * unroll, blocks)
            y_ref[:, here] = jnp.where(summed, sum_ref[...] + last, last).astype(y_ref.dtype)

        one_of(blocks - whole * unroll, [functools.partial(end_with, n) for n in range(unroll + 1)])
        return carry

    lax.fori_loop(0, jnp.minimum(tiles.lines, count - group), make_line, None)
