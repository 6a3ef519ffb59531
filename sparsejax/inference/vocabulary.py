"""Ids that a model has rows for and its tokenizer no token: rows that fill up the embedding, and gaps between ids.

They are never drawn. Axis: V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.data.tokenizer import Tokenizer

# Ranges ``(first, end)`` of such ids, in order; hashable, for programs are kept by them.
Absent = tuple[tuple[int, int], ...]


def absent_ids(tokenizer: Tokenizer, rows: int) -> Absent:
    """The ids below ``rows`` that the tokenizer has no token for."""
    absent_V = np.zeros(rows + 2, bool)
    absent_V[1 + tokenizer.vocab_size : -1] = True
    absent_V[[1 + gap for gap in tokenizer.gaps()]] = True
    edges = np.flatnonzero(np.diff(absent_V))
    return tuple((int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True))


def without_absent(logits: jax.Array, absent: Absent) -> jax.Array:
    """Logits ``[..., V]``, minus infinity where there is no token."""
    if not absent:
        return logits
    present_V = np.ones(logits.shape[-1], bool)
    for first, end in absent:
        present_V[first:end] = False
    return jnp.where(present_V, logits, -jnp.inf)
