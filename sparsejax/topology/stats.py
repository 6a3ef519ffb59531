"""What a topology looks like and what a rewiring changed: the numbers logged at each rewire.

One weight of one layer; axes as in ``blocks``. Results are float32 scalars. Shares of blocks take masks with any
leading axes, such as layers, and count over all of them: layers with more blocks weigh more.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.topology.blocks import BlockGrid, FlatIndex, Index, active_mask, coordinates


def activity(index: Index, grid: BlockGrid) -> jax.Array:
    """``[K / bk, N / bn]`` bool, True where a block is active."""
    if isinstance(index, FlatIndex):
        return jnp.zeros((grid.cells,), bool).at[index.flat].set(True, mode="drop").reshape(grid.shape)
    rows, cols = coordinates(index, grid)
    return jnp.zeros((grid.rows, grid.columns), bool).at[rows, cols].set(True, mode="drop")


def density(index: Index, grid: BlockGrid) -> jax.Array:
    """Active places over all places."""
    return jnp.sum(active_mask(index, grid)) / grid.cells


def grown(active: jax.Array, old_slot: jax.Array) -> jax.Array:
    """The slots ``[..., n]`` bool whose blocks came in the rewiring that gave ``old_slot``, its map to old slots."""
    return active & (old_slot < 0)


def churn(active: jax.Array, old_slot: jax.Array) -> jax.Array:
    """Fraction of the active blocks, ``[..., n]`` bool, that the last rewiring replaced."""
    return jnp.sum(grown(active, old_slot)) / jnp.maximum(jnp.sum(active), 1)


def overlap(one: jax.Array, other: jax.Array) -> jax.Array:
    """Fraction of the active places ``one``, bool of any shape, that are active in ``other`` too."""
    return jnp.sum(one & other) / jnp.maximum(jnp.sum(one), 1)


def survival(young: jax.Array, dropped: jax.Array) -> jax.Array:
    """Fraction of the blocks in the slots ``young`` that a rewiring kept, both ``[..., n]`` bool; NaN of none."""
    return jnp.sum(young & ~dropped) / jnp.sum(young)


def distance(one: Index, other: Index, grid: BlockGrid) -> jax.Array:
    """Fraction of all places that are active in exactly one of the two (SR-STE's SAD, Zhou et al. 2021, normalised)."""
    return jnp.mean(activity(one, grid) != activity(other, grid))


def dead_lines(index: Index, grid: BlockGrid) -> tuple[jax.Array, jax.Array]:
    """Fractions of block rows (inputs nobody reads) and block columns (outputs nobody writes) without a block."""
    active = activity(index, grid)
    return jnp.mean(~jnp.any(active, axis=1)), jnp.mean(~jnp.any(active, axis=0))
