"""Scores that decide which blocks go and which come, one number a block.

Axes: n slots, S shares, m cells (places for a block) of one share. Low drop scores go first, high growth
scores come first; ties are broken by the lower index (docs/ARCHITECTURE.md, section Rewiring).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.topology.blocks import BlockGrid
from sparsejax.topology.keys import share_key

# Bits of a float32 significand: an integer this long loses nothing of the weight it stands for.
_SIGNIFICAND_BITS = 24
_EXPONENT_OF_FLOAT32 = 0x7F800000


def magnitude(values: jax.Array) -> jax.Array:
    """Drop score ``sum |w|`` of every block as an integer, ``[n]`` int32 (SMET, arXiv 2606.00888, section 3).

    See ``magnitude_of``; the scale is that of the weight itself.
    """
    return magnitude_of(values)[0]


def magnitude_of(values: jax.Array, peak: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """``sum |w|`` of every block as an integer, and the weight that one unit of it stands for.

    Float sums change with the order of addition, and that order changes with the mesh. So |w| is scaled by the
    largest power of two ``p <= peak``, rounded to an integer, and summed exactly:
    ``score = sum round(|w| / p * 2**(bits - 1))``, ``bits = min(24, 31 - log2(bk * bn))`` rounded down. Scaling by
    powers of two is exact, so every platform finds the same integers. A block of one element needs no sum: its
    score is the bit pattern of |w|, which orders like |w| and never ties by rounding.

    Args:
      values: ``[..., bk, bn]``, any float dtype.
      peak: largest |w| the scale must hold, a float32 scalar; None is that of ``values``.

    Returns:
      ``(score, unit)``: ``[...]`` int32, and ``p / 2**(bits - 1)``, a float32 scalar.
    """
    elements = values.shape[-1] * values.shape[-2]
    if elements == 1:
        absolute = jnp.abs(values.astype(jnp.float32))
        return jax.lax.bitcast_convert_type(absolute, jnp.int32).reshape(values.shape[:-2]), jnp.float32(1)
    whole = integers(jnp.abs(values), peak)
    power = _power_below(_peak(values) if peak is None else peak)
    return jnp.sum(whole, axis=(-2, -1), dtype=jnp.int32), power / 2.0 ** (_bits(elements) - 1)


def integers(values: jax.Array, peak: jax.Array | None = None) -> jax.Array:
    """The weights as signed integers on the scale of ``magnitude_of``, ``[..., bk, bn]`` int32."""
    bits = _bits(values.shape[-1] * values.shape[-2])
    power = _power_below(_peak(values) if peak is None else peak)
    below_two = jnp.where(power > 0, values.astype(jnp.float32) / jnp.where(power > 0, power, 1.0), 0.0)
    # Rounding may lift the peak to 2**bits, where a full block would overflow.
    largest = 2.0**bits - 1
    return jnp.clip(jnp.round(below_two * 2.0 ** (bits - 1)), -largest, largest).astype(jnp.int32)


def of_dense(dense_KN: jax.Array, grid: BlockGrid, input_norm_K: jax.Array | None = None) -> jax.Array:
    """The magnitude of every place of a dense weight, ``[S, m]`` int32: what ``initial.best_index`` keeps most of.

    ``sum |W_kn|`` over the block, or with the norms of its inputs ``sum |W_kn| ||x_k||_2``: the score of Wanda (Sun et
    al., arXiv 2306.11695, section 3) summed over a block. Wanda compares the weights of one output; here the places
    of a share compete, and under ``balance="column"`` those of a block column.

    Inputs of a trained model differ by orders of magnitude, too many for the integers of ``magnitude_of``. So these are
    float32 sums, added in pairs of one fixed order, which no mesh changes, and returned as their bit patterns, which
    order as they do.

    Args:
      dense_KN: ``[K, N]``, any float dtype, finite.
      grid: how it is cut.
      input_norm_K: ``[K]`` float32, the norm of every input over the calibration text; None is magnitude alone.
    """
    (bk, bn) = grid.block
    size_KN = jnp.abs(dense_KN.astype(jnp.float32))
    if input_norm_K is not None:
        size_KN = size_KN * input_norm_K[:, None]
    sums_RC = _pairwise_sum(_pairwise_sum(size_KN.reshape(grid.rows, bk, grid.columns, bn), 3), 1)
    return by_share(jax.lax.bitcast_convert_type(sums_RC, jnp.int32), grid)


def _pairwise_sum(x: jax.Array, axis: int) -> jax.Array:
    """Sum over an axis by adding its second half to its first until one is left; an odd one out waits at the end."""
    while (size := x.shape[axis]) > 1:
        half = size // 2
        first, second, rest = jnp.split(x, (half, 2 * half), axis=axis)
        x = jnp.concatenate([first + second, rest], axis=axis)
    return jnp.squeeze(x, axis)


def _bits(elements: int) -> int:
    return min(_SIGNIFICAND_BITS, 31 - (elements - 1).bit_length())


def _peak(values: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(values.astype(jnp.float32)))


def _power_below(peak: jax.Array) -> jax.Array:
    """The largest power of two that is at most ``peak``; 0 for 0."""
    bits = jax.lax.bitcast_convert_type(peak, jnp.int32)
    return jax.lax.bitcast_convert_type(bits & _EXPONENT_OF_FLOAT32, jnp.float32)


def random(key: jax.Array, grid: BlockGrid) -> jax.Array:
    """Growth score drawn at random for every place of every share, ``[S, m]`` int32, non-negative."""
    shares = jnp.arange(grid.shards)
    bits = jax.vmap(lambda s: jax.random.bits(share_key(key, s), (grid.cells_per_share,), jnp.uint32))(shares)
    return jax.lax.bitcast_convert_type(bits >> 1, jnp.int32)


def by_share(score_RC: jax.Array, grid: BlockGrid) -> jax.Array:
    """A score per place of the whole weight, ``[K / bk, N / bn]``, in the order of positions, ``[S, m]``.

    Raises:
      ValueError: scores of another shape.
    """
    if score_RC.shape != (grid.rows, grid.columns):
        raise ValueError(f"scores of shape {score_RC.shape}: the grid has {(grid.rows, grid.columns)} places")
    if grid.shard_axis == "rows":
        by_share_SrC = score_RC.reshape(grid.shards, grid.share_rows, grid.columns)
        return by_share_SrC.transpose(0, 2, 1).reshape(grid.shards, -1)
    by_share_RSc = score_RC.reshape(grid.rows, grid.shards, grid.share_columns)
    return by_share_RSc.transpose(1, 2, 0).reshape(grid.shards, -1)
