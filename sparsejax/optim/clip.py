"""Clipping of gradients by their global norm, in a form that needs no clipped copy of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.optim.forms import at_least_float32


def clip_by_global_norm(largest: jax.typing.ArrayLike) -> optax.GradientTransformationExtraArgs:
    """Scale all gradients by ``min(1, largest / norm)``, where ``norm`` is over all leaves together.

    ``optax.clip_by_global_norm`` divides every element by the norm; XLA does not duplicate a division into both
    moment updates, so it stores the clipped gradient. One multiplication by a number does fuse into both.

    The norm is taken in float32 at least. Gradients that are not finite stay so: refusing the step is up to the
    caller. Leaves keep their shape and dtype. An array as ``largest`` may hold 0, which clips nothing.
    """

    def init(params: optax.Params) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: optax.Updates, state: optax.EmptyState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params, extra_args
        squares = [jnp.sum(jnp.square(leaf.astype(at_least_float32(leaf.dtype)))) for leaf in jax.tree.leaves(updates)]
        norm = jnp.sqrt(sum(squares))
        inside = norm <= largest
        if isinstance(largest, jax.Array):
            inside |= largest == 0
        factor = jnp.where(inside, 1.0, largest / norm)
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), updates), state

    return optax.GradientTransformationExtraArgs(init, update)
