"""An optimizer state as it would be long after the start: bias correction is over, everything else is the same."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.optim.sparse_adam import SparseAdamState, sparse_adam_state


def saturate(opt_state: Any, extra: int, b1: float, b2: float) -> Any:
    """Add ``extra`` updates to the count and to the age of every block that has made one.

    Moments are rescaled so that the corrected ones, and with them the next update of an old block, stay what they
    were: ``m (1 - b1^(t + extra)) / (1 - b1^t)``, the second alike, with ``t`` the age of a block or the count of a
    dense leaf. So a branch test can look at a late rewiring without training that long. Counts alone would make
    every update of a young run larger, since its moments still lack the mass that the correction supplies.

    Args:
      opt_state: any optax state that contains exactly one ``SparseAdamState``.
      extra: updates to add, at least 0.
      b1: decay of the first moment.
      b2: decay of the second moment.

    Returns:
      ``opt_state`` with that one state replaced; blocks of age 0, free slots among them, are left alone.
    """
    found = sparse_adam_state(opt_state)

    def factor(decay: float, t: jax.Array) -> jax.Array:
        """Of a moment after ``t`` updates; as in ``forms.py``, ``expm1`` does not cancel for a decay near 1."""
        log_decay = math.log(decay) if decay > 0 else -math.inf
        updates = jnp.maximum(jnp.asarray(t, jnp.float32), 1.0)
        grown = jnp.expm1((updates + extra) * log_decay) / jnp.expm1(updates * log_decay)
        return jnp.where(t > 0, grown, 1.0)

    def scaled(decay: float) -> Any:
        def leaf(key_path: Any, moment: jax.Array) -> jax.Array:
            path = jax.tree_util.keystr(key_path, simple=True, separator="/")
            t = found.ages[path][..., None, None] if path in found.ages else found.count
            return (moment.astype(jnp.float32) * factor(decay, t)).astype(moment.dtype)

        return leaf

    late = SparseAdamState(
        count=found.count + extra,
        mu=jax.tree_util.tree_map_with_path(scaled(b1), found.mu),
        nu=jax.tree_util.tree_map_with_path(scaled(b2), found.nu),
        ages={path: jnp.where(age > 0, age + extra, age) for path, age in found.ages.items()},
    )
    return jax.tree.map(lambda node: late if _is_state(node) else node, opt_state, is_leaf=_is_state)


def _is_state(node: Any) -> bool:
    return isinstance(node, SparseAdamState)
