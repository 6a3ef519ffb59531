"""What a topology looks like and what a rewiring changed: the numbers logged at each rewire.

One weight of one layer; axes as in ``blocks``. All results are float32 scalars.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.topology.blocks import BlockGrid, Index, active_mask, coordinates


def activity(index: Index, grid: BlockGrid) -> jax.Array:
    """``[K / bk, N / bn]`` bool, True where a block is active."""
    rows, cols = coordinates(index, grid)
    return jnp.zeros((grid.rows, grid.columns), bool).at[rows, cols].set(True, mode="drop")


def density(index: Index, grid: BlockGrid) -> jax.Array:
    """Active places over all places."""
    return jnp.sum(active_mask(index, grid)) / grid.cells


def churn(index: Index, grid: BlockGrid, old_slot: jax.Array) -> jax.Array:
    """Fraction of the active blocks that the last rewiring replaced."""
    active = active_mask(index, grid)
    return jnp.sum(active & (old_slot < 0)) / jnp.maximum(jnp.sum(active), 1)


def overlap(one: Index, other: Index, grid: BlockGrid) -> jax.Array:
    """Fraction of the active places of ``one`` that are active in ``other`` too."""
    mine, theirs = activity(one, grid), activity(other, grid)
    return jnp.sum(mine & theirs) / jnp.maximum(jnp.sum(mine), 1)


def survival(old_slot: jax.Array, young: jax.Array) -> jax.Array:
    """Fraction of the blocks in the slots ``young [n]`` (bool, before a rewiring) that the rewiring kept; NaN of none.

    ``old_slot [n]`` is the rewiring's map from new to old slots.
    """
    slots = young.shape[0]
    kept = jnp.zeros((slots,), bool).at[jnp.where(old_slot < 0, slots, old_slot)].set(True, mode="drop")
    return jnp.sum(kept & young) / jnp.sum(young)


def distance(one: Index, other: Index, grid: BlockGrid) -> jax.Array:
    """Fraction of all places that are active in exactly one of the two (SR-STE's SAD, Zhou et al. 2021, normalised)."""
    return jnp.mean(activity(one, grid) != activity(other, grid))


def dead_lines(index: Index, grid: BlockGrid) -> tuple[jax.Array, jax.Array]:
    """Fractions of block rows (inputs nobody reads) and block columns (outputs nobody writes) without a block."""
    active = activity(index, grid)
    return jnp.mean(~jnp.any(active, axis=1)), jnp.mean(~jnp.any(active, axis=0))
