"""The decoder with a key-value cache: read prompts once, then extend every row by its next tokens.

Any ``models.llama.Llama`` of one device will do; nothing here knows of tokenizers or of sampling::

    hidden_BD, cache = prefill(model, prompts_BT, lengths_B, capacity=256)
    next_B = jnp.argmax(model.logits(hidden_BD), axis=-1)
    hidden_B1D, cache = extend(model, cache, next_B[:, None])

Prompts of different lengths stand at the left of their rows. What is behind them is read too, but no token ever sees
it: positions count from the start of the row, a query sees keys up to its own position, and the next token of a row is
written over the first of those behind its last. So a row means the same in every batch.

Axes: L layers, B rows, T tokens, S capacity of the cache in tokens, D hidden, N query heads, M key and value heads,
H head width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax.models.attention import causal_attention
from sparsejax.models.layers import Rotation, rope_frequencies, rotation_of
from sparsejax.models.llama import DecoderLayer, Llama

Pair = tuple[jax.Array, jax.Array]

# From rotated queries, rotated keys and plain values to heads, and to what is kept of keys and values.
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Pair]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """What a decoder keeps of the tokens it has read.

    Attributes:
      keys: ``[L, B, M, S, H]`` in the compute dtype, rotated; places at and behind ``lengths_B`` mean nothing. A head's
        tokens lie together, as its products read them: XLA puts them so on a CPU, and takes longer from elsewhere.
      values: ``[L, B, M, S, H]``.
      lengths_B: int32, tokens of every row.
    """

    keys: jax.Array
    values: jax.Array
    lengths_B: jax.Array


def prefill(model: Llama, tokens_BT: jax.Array, lengths_B: jax.Array, capacity: int) -> tuple[jax.Array, Cache]:
    """Read prompts from nothing.

    Args:
      model: a decoder of one device.
      tokens_BT: int32 prompts, each at the left of its row; what is behind may be any token.
      lengths_B: int32, tokens of every prompt, at least 1.
      capacity: tokens that a row of the cache can hold, at least T.

    Returns:
      The output of the last layer at the last token of every prompt, normalised, ``[B, D]``, which ``model.logits``
      takes; and the cache.

    Raises:
      ValueError: ``capacity`` is below T.
    """
    length = tokens_BT.shape[1]
    if capacity < length:
        raise ValueError(f"capacity={capacity}: must be at least the {length} tokens of the prompts")
    rotation = rotation_of(jnp.arange(length), rope_frequencies(model.model))
    graphdef, states = nnx.split(model.layers)

    def body(x_BTD: jax.Array, states: nnx.State) -> tuple[jax.Array, Pair]:
        layer = nnx.merge(graphdef, states)

        def attend(q_BTNH: jax.Array, k_BTMH: jax.Array, v_BTMH: jax.Array) -> tuple[jax.Array, Pair]:
            heads = causal_attention(q_BTNH, k_BTMH, v_BTMH, implementation=layer.attention.implementation)
            return heads, (k_BTMH.swapaxes(1, 2), v_BTMH.swapaxes(1, 2))

        return _layer(layer, x_BTD, rotation, attend)

    x_BTD, (keys, values) = jax.lax.scan(body, model.embedded(tokens_BT), states)
    room = ((0, 0), (0, 0), (0, 0), (0, capacity - length), (0, 0))
    cache = Cache(jnp.pad(keys, room), jnp.pad(values, room), lengths_B.astype(jnp.int32))
    last_BD = jnp.take_along_axis(x_BTD, (lengths_B - 1)[:, None, None], axis=1)[:, 0]
    return model.norm(last_BD), cache


def extend(model: Llama, cache: Cache, tokens_BT: jax.Array) -> tuple[jax.Array, Cache]:
    """Read the next T tokens of every row; usually one.

    Args:
      model: the decoder that filled the cache.
      cache: donate it (``jax.jit(..., donate_argnames="cache")``) and it is updated in place.
      tokens_BT: int32. A token that does not fit into the cache any more is not kept, and what is returned for it
        means nothing: the caller counts.

    Returns:
      The normalised output of the last layer at every new token, ``[B, T, D]``; and the longer cache.
    """
    rows, length = tokens_BT.shape
    position_BT = cache.lengths_B[:, None] + jnp.arange(length, dtype=jnp.int32)
    rotation = rotation_of(position_BT, rope_frequencies(model.model))
    visible_B1TS = jnp.arange(cache.keys.shape[3]) <= position_BT[:, None, :, None]
    graphdef, states = nnx.split(model.layers)
    row_B1 = jnp.arange(rows)[:, None]

    def body(carry: tuple[jax.Array, Pair], of_layer: tuple[jax.Array, nnx.State]) -> tuple[Any, None]:
        x_BTD, stored = carry
        number, states = of_layer

        def attend(q_BTNH: jax.Array, k_BTMH: jax.Array, v_BTMH: jax.Array) -> tuple[jax.Array, Pair]:
            # The whole stack is carried and written at a few places: as outputs of the scan, layers would be copied.
            keys = stored[0].at[number, row_B1, :, position_BT].set(k_BTMH, mode="drop")
            values = stored[1].at[number, row_B1, :, position_BT].set(v_BTMH, mode="drop")
            k, v = (jax.lax.dynamic_index_in_dim(stack, number, keepdims=False) for stack in (keys, values))
            heads = jax.nn.dot_product_attention(q_BTNH, k.swapaxes(1, 2), v.swapaxes(1, 2), mask=visible_B1TS)
            return heads, (keys, values)

        return _layer(nnx.merge(graphdef, states), x_BTD, rotation, attend), None

    first = (model.embedded(tokens_BT), (cache.keys, cache.values))
    (x_BTD, (keys, values)), _ = jax.lax.scan(body, first, (jnp.arange(cache.keys.shape[0]), states))
    return model.norm(x_BTD), Cache(keys, values, cache.lengths_B + length)


def _layer(layer: DecoderLayer, x_BTD: jax.Array, rotation: Rotation, attend: Attend) -> tuple[jax.Array, Pair]:
    """``DecoderLayer.__call__`` with the attention given; returns what ``attend`` keeps too."""
    heads_BTNH, kept = attend(*layer.attention.project(layer.attention_norm(x_BTD), rotation))
    x_BTD = x_BTD + layer.attention.output(heads_BTNH)
    return x_BTD + layer.mlp(layer.mlp_norm(x_BTD)), kept
