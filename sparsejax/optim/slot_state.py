"""Which arrays of an optimizer state belong to the slots of a block-sparse leaf, and the maps that may move them.

Optax keeps trees with the structure of the parameters inside named tuples. An array belongs to a leaf if its path ends
with the leaf's; the field in front of it says what is kept there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.optim.paths import leaf_path

# Fields whose arrays move with the blocks and are 0 where a block is new: moments, ages, sums of gradients
# (``MultiSteps``, ``apply_every``), averages of updates (``trace``, ``ema``), and the average of the weights.
SLOT_FIELDS = frozenset({"mu", "nu", "ages", "acc_grads", "grad_acc", "trace", "ema", "weights"})


def kept_for(key_path: Any, paths: Collection[str]) -> tuple[str, str] | None:
    """Field and leaf path of an array of an optimizer state, or None if it belongs to none of ``paths``."""
    for start in range(len(key_path)):
        path = leaf_path(key_path[start:])
        if path in paths:
            before = key_path[start - 1] if start else None
            return (before.name if isinstance(before, jax.tree_util.GetAttrKey) else ""), path
    return None


def check_maps(ages: Mapping[str, jax.Array], old_slots: Mapping[str, jax.Array], shards: int) -> None:
    """Raise ``ValueError`` for a map that cannot be one: its leaf, shape, dtype, or slots that are not there.

    Args:
      ages: ``[..., n]`` of every block-sparse leaf.
      old_slots: for the path of every rewired leaf ``[..., n]`` int32; traced ones are not looked into.
      shards: shares of every named weight.
    """
    for path, old_slot in old_slots.items():
        if path not in ages:
            raise ValueError(f"old_slots names {path}, which is no block-sparse leaf; those are {sorted(ages)}")
        shape, slots = ages[path].shape, ages[path].shape[-1]
        if jnp.shape(old_slot) != shape:
            raise ValueError(f"old_slots[{path}] has shape {jnp.shape(old_slot)}: must be {shape}")
        if not jnp.issubdtype(jnp.result_type(old_slot), jnp.integer):
            raise ValueError(f"old_slots[{path}] has dtype {jnp.result_type(old_slot)}: must be integers")
        if isinstance(shards, bool) or not isinstance(shards, int) or shards < 1 or slots % shards:
            raise ValueError(f"shards={shards!r}: must be a whole number that divides the {slots} slots of {path}")
        if not isinstance(old_slot, jax.core.Tracer):
            _check_slots(path, np.asarray(old_slot).reshape(-1, shards, slots // shards))


def _check_slots(path: str, old_slot_LSc: np.ndarray) -> None:
    """Raise unless every slot named lies in its own share and is named once."""
    _, shards, per_share = old_slot_LSc.shape
    first_S1 = np.arange(shards)[:, None] * per_share
    named = old_slot_LSc != -1
    inside = (old_slot_LSc >= first_S1) & (old_slot_LSc < first_S1 + per_share)
    if (named & ~inside).any():
        wrong = old_slot_LSc[named & ~inside][0]
        raise ValueError(f"old_slots[{path}] names slot {wrong}: must be -1 or a slot of the same share")
    ordered = np.sort(old_slot_LSc, axis=-1)
    if ((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)).any():
        raise ValueError(f"old_slots[{path}] names a slot twice: a block has one place")
