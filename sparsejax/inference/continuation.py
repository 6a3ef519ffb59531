"""Rows of tokens, continued one token at a time, and what of a long row the model still sees.

Axes: B rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.inference.cache import Cache
from sparsejax.inference.engine import Engine, bucket
from sparsejax.inference.sampling import Sampling


class Continuation:
    """Every row behind its prompt, in step: each call of ``step`` gives the next token of all of them.

    A context is the start token and what follows it, at most ``length`` tokens, as a row was in training. Of a prompt
    that leaves no room for ``new_tokens``, the newest tokens are read that do, but never less than ``length // 2``.
    Where the next token would still be one too many, the context becomes the start token and the newest
    ``length // 2`` tokens, read anew: so positions stay within what was trained, and a long text costs a prompt every
    ``length // 2`` tokens.

    What a row draws depends on its own tokens, its seed and the number of the token alone, not on the rows beside it.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Sequence[int]],
        *,
        start_id: int,
        length: int,
        new_tokens: int,
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> None:
        """Read the prompts.

        Args:
          engine: the model.
          prompts: token ids without the start token; may be empty. As many as ``engine.devices`` divides.
          start_id: token in front of every row.
          length: tokens of the longest context, at least 2.
          new_tokens: how often ``step`` can be called, at least 1.
          seeds: one a row, in [0, 2**32).
          sampling: how tokens are drawn.

        Raises:
          ValueError: the devices do not divide the rows, or a length or count is too small.
        """
        if len(prompts) % engine.devices or not prompts:
            raise ValueError(f"{len(prompts)} rows: must be a multiple of the {engine.devices} devices")
        if length < 2 or new_tokens < 1:
            raise ValueError(f"length={length}, new_tokens={new_tokens}: must be at least 2 and 1")
        self._engine, self._sampling, self._start_id = engine, sampling, start_id
        self._length, self._new_tokens = length, new_tokens
        self._tokens = [list(prompt) for prompt in prompts]
        self._live_B = np.ones(len(prompts), bool)
        self._seeds_B = np.asarray(seeds, np.uint32)
        most = max(length - new_tokens, length // 2)
        contexts = [[start_id, *prompt[-most:]] for prompt in self._tokens]
        self._capacity = bucket(max(map(len, contexts)) + new_tokens, length)
        self._made = 0
        self._lengths_B = np.array([len(context) for context in contexts])
        self._token_B, self._cache = self._read(contexts)

    def finish(self, row: int) -> None:
        """Say that nobody looks at the tokens of a row any more; ``step`` goes on giving some."""
        self._live_B[row] = False

    def step(self) -> np.ndarray:
        """The next token of every row, ``[B]`` int32.

        Raises:
          ValueError: all ``new_tokens`` were given.
        """
        if self._made == self._new_tokens:
            raise ValueError(f"all {self._new_tokens} tokens were given")
        current_B, self._made = self._token_B, self._made + 1
        full_B = self._live_B & (self._lengths_B >= self._length)
        if self._made < self._new_tokens and not full_B.any():
            # Before the current tokens are waited for: the device never idles while the host looks at them.
            self._advance(current_B)
        ids_B = np.asarray(current_B)
        for tokens, token in zip(self._tokens, ids_B, strict=True):
            tokens.append(int(token))
        if self._made < self._new_tokens and full_B.any():
            self._renew(current_B, full_B)
        return ids_B

    def _advance(self, token_B: jax.Array) -> None:
        engine = self._engine
        self._token_B, self._cache = engine.step(self._cache, token_B, self._seeds_B, self._made, self._sampling)
        self._lengths_B = self._lengths_B + 1

    def _renew(self, token_B: jax.Array, full_B: np.ndarray) -> None:
        """Advance, but give the full rows new contexts."""
        contexts = [
            [self._start_id, *tokens[-(self._length // 2) :]] if full else [self._start_id]
            for tokens, full in zip(self._tokens, full_B, strict=True)
        ]
        renewed = self._read(contexts)
        self._advance(token_B)
        self._token_B, self._cache = jax.jit(_choose)(full_B, renewed, (self._token_B, self._cache))
        self._lengths_B = np.where(full_B, [len(context) for context in contexts], self._lengths_B)

    def _read(self, contexts: Sequence[Sequence[int]]) -> tuple[jax.Array, Cache]:
        longest = bucket(max(map(len, contexts)), self._capacity)
        tokens_BT = np.full((len(contexts), longest), self._start_id, np.int32)
        for row, context in zip(tokens_BT, contexts, strict=True):
            row[: len(context)] = context
        lengths_B = np.array([len(context) for context in contexts], np.int32)
        return self._engine.prefill(tokens_BT, lengths_B, self._seeds_B, self._made, self._capacity, self._sampling)


def _choose(chosen_B: jax.Array, new: tuple[jax.Array, Cache], old: tuple[jax.Array, Cache]) -> tuple[jax.Array, Cache]:
    """Tokens and caches row by row: the new ones where chosen."""

    def by_row(axis: int, new: jax.Array, old: jax.Array) -> jax.Array:
        shape = [1] * new.ndim
        shape[axis] = -1
        return jnp.where(chosen_B.reshape(shape), new, old)

    (new_B, new_cache), (old_B, old_cache) = new, old
    cache = Cache(
        keys=by_row(1, new_cache.keys, old_cache.keys),
        values=by_row(1, new_cache.values, old_cache.values),
        lengths_B=by_row(0, new_cache.lengths_B, old_cache.lengths_B),
    )
    return by_row(0, new_B, old_B), cache
