"""Scores that decide which blocks go and which come, one number a block.

Axes: n slots, S shares, m cells (places for a block) of one share. Low drop scores go first, high growth
scores come first; ties are broken by the lower index (docs/ARCHITECTURE.md, section Rewiring).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.topology.blocks import BlockGrid
from sparsejax.topology.keys import share_key

# The largest integer scale whose products stay exact in float32.
_FLOAT32_INTEGERS = 2**24


def magnitude(values: jax.Array) -> jax.Array:
    """Drop score ``sum |w|`` of every block as an integer, ``[n]`` int32 (SMET, arXiv 2606.00888, section 3).

    Float sums change with the order of addition, and that order changes with the mesh. So |w| is scaled to
    the largest |w| of the weight, rounded to an integer, and summed exactly: with ``q`` the scale,
    ``score = sum round(|w| / max|w| * q)``, ``q = min(2**24, (2**31 - 1) // (bk * bn))``. A block of one
    element needs no sum: its score is the bit pattern of |w|, which orders like |w| and never ties by rounding.

    Args:
      values: ``[n, bk, bn]`` of one weight, any float dtype.
    """
    absolute = jnp.abs(values.astype(jnp.float32))
    elements = values.shape[-1] * values.shape[-2]
    if elements == 1:
        return jax.lax.bitcast_convert_type(absolute, jnp.int32).reshape(values.shape[:-2])
    scale = min(_FLOAT32_INTEGERS, (2**31 - 1) // elements)
    peak = jnp.max(absolute)
    # A platform whose division is not exact may put the peak just above 1, where a full block would overflow int32.
    relative = jnp.minimum(jnp.where(peak > 0, absolute / jnp.where(peak > 0, peak, 1.0), 0.0), 1.0)
    return jnp.sum(jnp.round(relative * scale).astype(jnp.int32), axis=(-2, -1), dtype=jnp.int32)


def random(key: jax.Array, grid: BlockGrid) -> jax.Array:
    """Growth score drawn at random for every place of every share, ``[S, m]`` int32, non-negative."""
    shares = jnp.arange(grid.shards)
    bits = jax.vmap(lambda s: jax.random.bits(share_key(key, s), (grid.cells_per_share,), jnp.uint32))(shares)
    return jax.lax.bitcast_convert_type(bits >> 1, jnp.int32)


def by_share(score_RC: jax.Array, grid: BlockGrid) -> jax.Array:
    """A score per place of the whole weight, ``[K / bk, N / bn]``, in the order of positions, ``[S, m]``."""
    if grid.shard_axis == "rows":
        by_share_SrC = score_RC.reshape(grid.shards, grid.share_rows, grid.columns)
        return by_share_SrC.transpose(0, 2, 1).reshape(grid.shards, -1)
    by_share_RSc = score_RC.reshape(grid.rows, grid.shards, grid.share_columns)
    return by_share_RSc.transpose(1, 2, 0).reshape(grid.shards, -1)


def lowest(score: jax.Array, allowed: jax.Array, count: jax.Array | int) -> jax.Array:
    """The ``count`` allowed entries with the lowest scores, as a mask; ties go to the lower index.

    Args:
      score: ``[m]``, integer or float (no NaN).
      allowed: ``[m]`` bool; entries that may be chosen.
      count: how many, an integer or a traced scalar; if fewer are allowed, all of them are chosen.
    """
    places = jnp.arange(score.shape[0], dtype=jnp.int32)
    _, _, order = jax.lax.sort((~allowed, score, places), num_keys=3)
    chosen = jnp.zeros(score.shape, bool).at[order].set(places < count, unique_indices=True)
    return chosen & allowed
