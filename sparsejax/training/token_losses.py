"""What a model says of every single token: the program behind ``sparsejax evaluate``.

Axes: B rows of a batch, T tokens of a row, D hidden, V vocabulary, C chunks. Targets are those of ``loss.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from sparsejax.models import functional
from sparsejax.training.loss import IGNORED, chunk_count, shift_right
from sparsejax.training.recipe import Recipe
from sparsejax.training.state import Tree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenLosses:
    """Of every target of a batch, ``[B, T]``; where the target is -1 the numbers mean nothing.

    Attributes:
      nll: negative log-likelihood in nats, float32.
      confidence: probability of the most likely token, float32.
      correct: whether that token is the target, bool.
    """

    nll: jax.Array
    confidence: jax.Array
    correct: jax.Array


def token_losses(logits_BTV: jax.Array, target_BT: jax.Array) -> TokenLosses:
    """Loss, confidence and correctness of each target; of several equally likely tokens the lowest counts."""
    logits_BTV = logits_BTV.astype(jnp.float32)
    log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    picked_BT1 = jnp.take_along_axis(logits_BTV, jnp.maximum(target_BT, 0)[..., None], axis=-1)
    return TokenLosses(
        nll=log_z_BT - picked_BT1[..., 0],
        confidence=jnp.exp(jnp.max(logits_BTV, axis=-1) - log_z_BT),
        correct=jnp.argmax(logits_BTV, axis=-1) == target_BT,
    )


def make_token_step(recipe: Recipe) -> Callable[[Tree, Tree, jax.Array], TokenLosses]:
    """The program of one device: params, topology and targets ``[B, T]`` in, ``TokenLosses`` out.

    The forward pass is the trainer's, so the mean of ``nll`` is its validation loss. Logits exist for
    ``train.loss_chunk`` tokens at a time.
    """

    def token_step(params: Tree, topology: Tree, target_BT: jax.Array) -> TokenLosses:
        model = functional.merge(recipe.graphdef, params, topology)
        hidden_BTD = model.hidden_states(shift_right(target_BT, recipe.start_id))
        logits = partial(model.logits_by, model.head_kernel)
        length = target_BT.shape[1]
        chunks = chunk_count(target_BT.shape, recipe.run.train.loss_chunk)
        padding = -length % chunks
        hidden_BTD = jnp.pad(hidden_BTD, ((0, 0), (0, padding), (0, 0)))
        padded_BT = jnp.pad(target_BT, ((0, 0), (0, padding)), constant_values=IGNORED)

        def by_chunk(x: jax.Array) -> jax.Array:
            return x.reshape(x.shape[0], chunks, -1, *x.shape[2:]).swapaxes(0, 1)

        def of_chunk(chunk: tuple[jax.Array, jax.Array]) -> TokenLosses:
            return token_losses(logits(chunk[0]), chunk[1])

        found_CBt = jax.lax.map(of_chunk, (by_chunk(hidden_BTD), by_chunk(padded_BT)))
        return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(padded_BT.shape)[:, :length], found_CBt)

    return token_step
