"""Next-token loss in float32.

Axes: B rows of a batch, T tokens of a row, D hidden, V vocabulary, C chunks.

A batch holds targets; the inputs are the targets shifted right behind the tokenizer's start id, so every token of a
row is predicted exactly once. A target of -1 is padding: it adds to no sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

IGNORED = -1

# A tree of scalars.
Sums = TypeVar("Sums")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossSums:
    """Sums over the counted tokens of a batch, float32 scalars.

    Attributes:
      nll: negative log-likelihood in nats.
      log_z2: squared log of the softmax normaliser, for the z-loss.
      tokens: number of counted targets.
    """

    nll: jax.Array
    log_z2: jax.Array
    tokens: jax.Array


def shift_right(target_BT: jax.Array, start_id: int) -> jax.Array:
    """Model inputs ``[B, T]`` for the targets: the start id, then all targets but the last."""
    input_BT = jnp.pad(target_BT[:, :-1], ((0, 0), (1, 0)), constant_values=start_id)
    return jnp.maximum(input_BT, 0)


def loss_sums(logits_BTV: jax.Array, target_BT: jax.Array) -> LossSums:
    """Sums of ``-log softmax(logits)[target]`` and of ``log(sum exp logits)^2`` over targets other than -1."""
    logits_BTV = logits_BTV.astype(jnp.float32)
    log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    counted_BT = target_BT != IGNORED
    picked_BT1 = jnp.take_along_axis(logits_BTV, jnp.maximum(target_BT, 0)[..., None], axis=-1)
    nll_BT = log_z_BT - picked_BT1[..., 0]
    return LossSums(
        nll=jnp.sum(jnp.where(counted_BT, nll_BT, 0.0)),
        log_z2=jnp.sum(jnp.where(counted_BT, jnp.square(log_z_BT), 0.0)),
        tokens=jnp.sum(counted_BT, dtype=jnp.float32),
    )


@jax.named_scope("head_and_loss")
def head_loss_sums(
    logits: Callable[[jax.Array], jax.Array], hidden_BTD: jax.Array, target_BT: jax.Array, *, chunk_tokens: int
) -> LossSums:
    """``loss_sums(logits(hidden), target)`` without ever holding the logits of more than ``chunk_tokens`` tokens.

    Chunks are equal slices of the positions, each with all rows, so that every device of a mesh that divides the rows
    works on every chunk. Their number is the least that keeps to ``chunk_tokens``, but a chunk has one position at
    least; where it does not divide the positions, the last chunk is padded with ignored targets. The backward pass
    makes the logits of a chunk once more, one more head product than keeping them. The gradient of what ``logits``
    closes over is summed over the chunks in that array's own dtype: it should close over the float32 kernel and cast
    it inside.

    Args:
      logits: the head, ``[B, t, D]`` to float32 ``[B, t, V]``, position by position; may close over parameters.
      hidden_BTD: normalised output of the last layer.
      target_BT: integer targets, -1 where there is none.
      chunk_tokens: tokens of one chunk, at least 1; 0 makes all logits at once, as a batch of at most this many does.
    """

    def sums_of(hidden_BTD: jax.Array, target_BT: jax.Array) -> LossSums:
        return loss_sums(logits(hidden_BTD), target_BT)

    return sums_by_chunks(sums_of, (hidden_BTD,), target_BT, chunk_tokens=chunk_tokens)


def sums_by_chunks(
    sums_of: Callable[..., Sums], hidden: tuple[jax.Array, ...], target_BT: jax.Array, *, chunk_tokens: int
) -> Sums:
    """``sums_of(*hidden, target)``, sums over tokens, added up over chunks of positions as ``head_loss_sums`` says.

    Args:
      sums_of: of arrays ``[B, t, D]`` and targets ``[B, t]`` to a tree of scalars.
      hidden: arrays ``[B, T, D]``.
      target_BT: integer targets, -1 where there is none.
      chunk_tokens: as ``head_loss_sums``.
    """
    length = target_BT.shape[1]
    chunks = chunk_count(target_BT.shape, chunk_tokens)
    if chunks == 1:
        return sums_of(*hidden, target_BT)
    padding = -length % chunks
    hidden = tuple(jnp.pad(each_BTD, ((0, 0), (0, padding), (0, 0))) for each_BTD in hidden)
    target_BT = jnp.pad(target_BT, ((0, 0), (0, padding)), constant_values=IGNORED)

    def by_chunk(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], chunks, -1, *x.shape[2:]).swapaxes(0, 1)

    # Forward and backward are different loops, so common subexpressions cannot undo the recomputation.
    of_chunk = jax.checkpoint(lambda chunk: sums_of(*chunk), prevent_cse=False)
    sums_C = jax.lax.map(of_chunk, tuple(map(by_chunk, (*hidden, target_BT))))
    total: Sums = jax.tree.map(jnp.sum, sums_C)
    return total


def chunk_count(shape: tuple[int, ...], chunk_tokens: int) -> int:
    """Chunks in which ``head_loss_sums`` takes targets of shape ``[B, T]``; 1 is the whole batch at once."""
    rows, length = shape
    return -(-length // max(chunk_tokens // rows, 1)) if 0 < chunk_tokens < rows * length else 1


def objective(sums: LossSums, z_loss: float) -> jax.Array:
    """What is minimised, summed over tokens: ``nll + z_loss * log_z2`` (z-loss: PaLM, Chowdhery et al. 2022)."""
    return sums.nll + z_loss * sums.log_z2
