"""How the next token is chosen. Axes: B rows, V vocabulary, C candidates."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

# Divided by less, logits that float32 tells apart are apart by more than any noise, and might overflow.
_GREEDY_BELOW = 1e-6


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: temperature first, then ``top_k``, then ``top_p`` of what that leaves.

    Attributes:
      temperature: logits are divided by it; 0, and what is below 1e-6, takes the most likely token.
      top_k: only the k most likely tokens can be drawn; 0 means all.
      top_p: only the most likely tokens can be drawn that together just reach this probability (nucleus sampling,
        Holtzman et al., arXiv 1904.09751); 1 means all.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: must be a number of at least 0")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k}: must be at least 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must be in (0, 1]")


GREEDY = Sampling()


def draw(logits_V: jax.Array, sampling: Sampling, key: jax.Array) -> jax.Array:
    """One token id, int32, from ``softmax(logits / temperature)`` cut to the likeliest tokens and renormalised.

    A token is in the nucleus if the ones before it, from the likeliest on, have less than ``top_p`` together: so the
    likeliest always is. Among equal logits the smaller id counts as the likelier.
    """
    if sampling.temperature < _GREEDY_BELOW:
        return jnp.argmax(logits_V).astype(jnp.int32)
    scaled_V = logits_V / sampling.temperature
    candidates = min(sampling.top_k or logits_V.size, logits_V.size)
    if candidates == logits_V.size and sampling.top_p == 1:
        return jax.random.categorical(key, scaled_V).astype(jnp.int32)
    kept_C, ids_C = jax.lax.top_k(scaled_V, candidates)
    if sampling.top_p < 1:
        probability_C = jax.nn.softmax(kept_C)
        before_C = jnp.cumsum(probability_C) - probability_C
        kept_C = jnp.where(before_C < sampling.top_p, kept_C, -jnp.inf)
    return ids_C[jax.random.categorical(key, kept_C)].astype(jnp.int32)


def draw_rows(logits_BV: jax.Array, sampling: Sampling, seeds_B: jax.Array, number: jax.Array) -> jax.Array:
    """The next token of every row, ``[B]`` int32.

    Args:
      logits_BV: float32.
      sampling: the same for all rows.
      seeds_B: uint32, each row's own: what a row draws does not depend on the rows beside it.
      number: how many tokens were drawn for the row before; with the seed it is the random key.
    """

    def of_row(logits_V: jax.Array, seed: jax.Array) -> jax.Array:
        return draw(logits_V, sampling, jax.random.fold_in(jax.random.key(seed), number))

    return jax.vmap(of_row)(logits_BV, seeds_B)
