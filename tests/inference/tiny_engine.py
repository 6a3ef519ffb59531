"""The tiny decoder of ``tests/models`` as an engine, and the same decoder without a cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.config import ModelConfig
from sparsejax.inference.engine import Engine
from sparsejax.inference.sampling import Sampling, draw
from sparsejax.inference.vocabulary import Absent
from sparsejax.models.functional import Tree, abstract, initial_trees, merge
from sparsejax.models.weight_table import SparseWeight, weight_table
from tests.models.conftest import MODEL, TOPOLOGY, build

VOCAB, START = 32, 31

# One of each kind of storage, with grouped queries and a rope scaling where nothing else needs room.
STORAGES: dict[str, dict[str, Any]] = {
    "dense": {"density": 1.0},
    "blocks": {"density": 0.5},
    "unstructured": {"density": 0.5, "block": (1, 1)},
    "n:m": {"density": 0.5, "storage": "dense_master"},
    "n:m flow": {"density": 0.5, "storage": "dense_master", "flow": "mask_exp"},
    "monarch": {"density": 0.5, "storage": "monarch"},
}


@dataclasses.dataclass(frozen=True)
class Tiny:
    """Config, table and arrays of one tiny decoder."""

    model: ModelConfig
    weights: dict[str, SparseWeight]
    params: Tree
    topology: Tree
    graphdef: Any

    def engine(self, devices: int = 1, implementation: str = "batched", absent: Absent = ()) -> Engine:
        return Engine(
            self.model,
            self.weights,
            self.params,
            self.topology,
            devices=jax.devices()[:devices],
            absent=absent,
            implementation=implementation,
        )

    def logits(self, tokens_BT: Any) -> jax.Array:
        """Without a cache, as the training programs compute it."""
        return _logits(self.graphdef, self.params, self.topology, jnp.asarray(tokens_BT))


@partial(jax.jit, static_argnums=0)
def _logits(graphdef: Any, params: Tree, topology: Tree, tokens_BT: jax.Array) -> jax.Array:
    return merge(graphdef, params, topology)(tokens_BT)


def tiny(storage: str = "blocks", vocab: int = VOCAB, **changes: Any) -> Tiny:
    """A decoder in a storage of ``STORAGES``."""
    model = dataclasses.replace(MODEL, rope_scaling="llama3", init_std=0.4, **changes)
    weights = weight_table(model, dataclasses.replace(TOPOLOGY, **STORAGES[storage]))
    make = build(model, weights, vocab_size=vocab)
    params, topology = jax.jit(partial(initial_trees, make))()
    if "flow" in STORAGES[storage]:
        topology = jax.tree.map(lambda leaf: leaf * 0 + (0.3 if leaf.dtype == jnp.float32 else 2), topology)
    return Tiny(model, weights, params, topology, abstract(make).graphdef)


def continued(
    decoder: Tiny, prompt: Sequence[int], *, length: int, new_tokens: int, seed: int, sampling: Sampling
) -> list[int]:
    """The tokens that ``Continuation`` promises, every one from the whole of its context."""
    tokens, context = list(prompt), [START, *prompt[-max(length - new_tokens, length // 2) :]]
    choose = jax.jit(draw, static_argnums=1)
    for number in range(new_tokens):
        padded = np.zeros((1, length), np.int32)
        padded[0, : len(context)] = context
        key = jax.random.fold_in(jax.random.key(seed), number)
        tokens.append(int(choose(decoder.logits(padded)[0, len(context) - 1], sampling, key)))
        context = [START, *tokens[-(length // 2) :]] if len(context) == length else [*context, tokens[-1]]
    return tokens[len(prompt) :]
