"""Moving per-slot arrays along when a rewiring moves blocks between slots."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


def gather_slots(array: jax.Array, old_slot: jax.Array, fill: float = 0, shards: int = 1) -> jax.Array:
    """Put into every new slot what its block held in its old slot: ``out[i] = array[old_slot[i]]``.

    Whatever belongs to a block follows it this way through a rewiring: its values, its moments, its age.

    Args:
      array: ``[..., n, *block]``, any dtype; ``block`` may be empty (one number a slot).
      old_slot: ``[..., n]`` int32, the map new slot -> old slot of a rewiring, -1 where the slot's block is new
        (or the slot is free). The leading axes are those of ``array`` (stacked layers).
      fill: what a slot without an old slot holds.
      shards: shares of the weight. A block never leaves its share, so devices that hold shares need no other's slots;
        named here, the compiler sees it too.

    Returns:
      An array of the shape and dtype of ``array``.

    Raises:
      ValueError: the axes of ``old_slot`` are not the first axes of ``array``.
    """
    if old_slot.ndim < 1 or array.shape[: old_slot.ndim] != old_slot.shape:
        raise ValueError(f"old_slot of shape {old_slot.shape} does not lead an array of shape {array.shape}")
    if shards > 1:
        (*stacked, slots), block = old_slot.shape, array.shape[old_slot.ndim :]
        by_share = old_slot.reshape(*stacked, shards, slots // shards)
        first = jnp.arange(shards, dtype=old_slot.dtype)[:, None] * (slots // shards)
        local = jnp.where(by_share < 0, by_share, by_share - first)
        return gather_slots(array.reshape(*local.shape, *block), local, fill).reshape(array.shape)
    pick = functools.partial(_gather_layer, fill=fill)
    for _ in range(old_slot.ndim - 1):
        pick = jax.vmap(pick)
    return pick(array, old_slot)


def _gather_layer(array: jax.Array, old_slot: jax.Array, *, fill: float) -> jax.Array:
    # -1 would read the last slot, and any other index out of range would be clamped: send it past the end and fill.
    beyond = jnp.where(old_slot < 0, array.shape[0], old_slot)
    return array.at[beyond].get(mode="fill", fill_value=fill)
