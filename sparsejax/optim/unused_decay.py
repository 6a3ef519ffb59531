"""The pull of weights that an N:M mask leaves out towards zero: the second term of SR-STE's gradient."""

from __future__ import annotations

from typing import Any

import jax
import optax

from sparsejax.topology.nm import NmPattern, nm_mask


def add_unused_decay(decay: float, pattern: NmPattern, masked: Any) -> optax.GradientTransformationExtraArgs:
    """Add ``decay * (1 - m) * w`` to the gradient of N:M weights, ``m`` being their mask (arXiv 2102.04010, eq. 8).

    It steadies the mask: weights outside it shrink, so fewer swap places with those inside. Belongs after clipping
    and before Adam. After clipping, because the norm that is clipped should be the loss's own, and the pull must not
    weaken whenever a batch has a large gradient; before Adam, because it is part of the gradient, as in the paper.
    It is added to the mean gradient of a step, so neither the number of tokens nor of microbatches scales it.

    Args:
      decay: SR-STE's lambda, at least 0; the paper's is 2e-4.
      pattern: N and M.
      masked: bools with the structure of the parameters, True for N:M weights ``[..., K, N]``.

    Returns:
      An optax transformation without state; its ``update`` needs the parameters.
    """

    def init(params: optax.Params) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: optax.Updates, state: optax.EmptyState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del extra_args
        if params is None:
            raise ValueError("add_unused_decay needs the parameters: call update(updates, state, params)")

        def pull(gradient: jax.Array, weight: jax.Array, is_masked: bool) -> jax.Array:
            if not is_masked:
                return gradient
            unused = ~nm_mask(weight, pattern.used, pattern.group)
            return gradient + decay * unused * weight

        return jax.tree.map(pull, updates, params, masked), state

    return optax.GradientTransformationExtraArgs(init, update)
