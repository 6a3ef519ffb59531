"""Text from a model, one token at a time.

Every new token runs the model over the whole window; a key-value cache comes with the inference issue.
Axes: T window, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax.data.tokenizer import Tokenizer
from sparsejax.models import functional

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
      temperature: logits are divided by it; 0 takes the most likely token.
      top_k: only the k most likely tokens can be drawn; 0 means all.
      seed: equal seeds give equal text.
    """

    temperature: float
    top_k: int
    seed: int

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}: must be at least 0")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k}: must be at least 0")


def draw(logits_V: jax.Array, sampling: Sampling, key: jax.Array) -> jax.Array:
    """One token id from ``softmax(logits / temperature)`` over the ``top_k`` most likely tokens."""
    if sampling.temperature == 0:
        return jnp.argmax(logits_V)
    if 0 < sampling.top_k < logits_V.shape[0]:
        threshold = jax.lax.top_k(logits_V, sampling.top_k)[0][-1]
        logits_V = jnp.where(logits_V >= threshold, logits_V, -jnp.inf)
    return jax.random.categorical(key, logits_V / sampling.temperature)


def generate(
    graphdef: nnx.GraphDef,
    params: Tree,
    topology: Tree,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    new_tokens: int,
    window: int,
    sampling: Sampling,
) -> Iterator[str]:
    """Continue ``prompt`` by at most ``new_tokens`` tokens, yielding the text so far after each of them.

    Args:
      graphdef: the model without its arrays.
      params: its parameters.
      topology: its index arrays.
      tokenizer: the one it was trained with.
      prompt: may be empty.
      new_tokens: upper limit; the document end token stops earlier.
      window: tokens the model looks back, its training sequence length.
      sampling: how tokens are drawn.
    """

    @jax.jit
    def next_token(params: Tree, topology: Tree, tokens_T: jax.Array, last: jax.Array, key: jax.Array) -> jax.Array:
        model = functional.merge(graphdef, params, topology)
        hidden_1TD = model.hidden_states(tokens_T[None])
        return draw(model.logits(hidden_1TD[:, last])[0], sampling, key)

    root = jax.random.key(sampling.seed)
    ids = [tokenizer.start_id, *tokenizer.encode(prompt)]
    for number in range(new_tokens):
        seen = ids[-window:]
        padded_T = np.full((window,), tokenizer.start_id, np.int32)
        padded_T[: len(seen)] = seen
        token = int(next_token(params, topology, padded_T, len(seen) - 1, jax.random.fold_in(root, number)))
        if token == tokenizer.end_id:
            return
        ids.append(token)
        yield tokenizer.decode(ids[1:])
