"""Next-token loss in float32.

Axes: B rows of a batch, T tokens of a row, V vocabulary. A batch holds targets; the inputs are the targets
shifted right behind the tokenizer's start id, so every token of a row is predicted exactly once.
A target of -1 is padding: it adds to no sum.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

IGNORED = -1


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


def objective(sums: LossSums, z_loss: float) -> jax.Array:
    """What is minimised, summed over tokens: ``nll + z_loss * log_z2`` (z-loss: PaLM, Chowdhery et al. 2022)."""
    return sums.nll + z_loss * sums.log_z2
