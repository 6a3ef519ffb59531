"""Norms of what every linear layer of a dense model multiplies, over a calibration text.

They weigh the weights of ``init.criterion=activation`` (Wanda, Sun et al., arXiv 2306.11695).

Axes: L layers, B rows, T tokens, K input width of a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from sparsejax.models import functional
from sparsejax.models.layers import rope_frequencies, rotation_of
from sparsejax.models.llama import DecoderLayer, Llama
from sparsejax.models.parallel import TENSOR
from sparsejax.models.shapes import SHARD_AXES
from sparsejax.training.feed import Batch
from sparsejax.training.loss import IGNORED, shift_right
from sparsejax.training.on_mesh import on_mesh
from sparsejax.training.recipe import Recipe
from sparsejax.training.state import Tree

# Kind of weight -> a float32 array ``[L, K]``.
Squares = dict[str, jax.Array]


class _Observed:
    """A linear layer that also adds up the squares of its inputs, ``[K]``, over the tokens that count."""

    def __init__(self, linear: Callable[[jax.Array], jax.Array], counted_BT: jax.Array) -> None:
        self._linear, self._counted_BT = linear, counted_BT

    def __call__(self, x_BTK: jax.Array) -> jax.Array:
        wide_BTK = jnp.where(self._counted_BT[..., None], x_BTK.astype(jnp.float32), 0.0)
        self.squares_K = jnp.sum(jnp.square(wide_BTK), axis=(0, 1))
        return self._linear(x_BTK)


def input_norms(dense: Recipe, params: Tree, batches: Iterable[Batch]) -> Squares:
    """``||x_k||_2`` of every input of every linear layer over some batches, ``[L, K]`` float32 for every kind.

    Args:
      dense: the recipe of the dense model, on its mesh.
      params: its params; matrices may be stored in the compute dtype.
      batches: targets ``[B, T]``, at least one batch.
    """
    program, total = jax.jit(make_input_squares(dense)), None
    for target_BT in batches:
        found = program(params, {}, target_BT)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    assert total is not None, "a calibration text has a batch"
    return jax.tree.map(jnp.sqrt, total)


def make_input_squares(dense: Recipe) -> Callable[[Tree, Tree, jax.Array], Squares]:
    """Params, an empty topology and targets ``[B, T]`` in; sums of squared inputs out."""

    def of_device(params: Tree, topology: Tree, target_BT: jax.Array) -> Squares:
        model = functional.merge(dense.graphdef, params, topology)
        return input_squares(model, shift_right(target_BT, dense.start_id), target_BT != IGNORED)

    # Outputs that are cut along the tensor axis are the inputs of the weights that are cut by rows.
    cut = {
        name: PartitionSpec(None, TENSOR) if axis == "rows" else PartitionSpec() for name, axis in SHARD_AXES.items()
    }
    return on_mesh(dense, of_device, cut)


def input_squares(model: Llama, tokens_BT: jax.Array, counted_BT: jax.Array) -> Squares:
    """Sums of squares of what every linear layer multiplies; on a mesh the device's part of a sum over all devices.

    Args:
      model: a dense decoder.
      tokens_BT: inputs.
      counted_BT: bools; other tokens are in no sum.
    """
    parallel = model.parallel
    rotation = rotation_of(jnp.arange(tokens_BT.shape[1]), rope_frequencies(model.model))
    graphdef, *states = nnx.split(model.layers, nnx.Param, ...)

    def body(x_BTD: jax.Array, states: list[nnx.State]) -> tuple[jax.Array, Squares]:
        layer = nnx.merge(graphdef, *states)
        observed = _observe(layer, counted_BT)
        x_BTD = layer(x_BTD, rotation)
        return x_BTD, {name: each.squares_K for name, each in observed.items()}

    x_BTD = model.embedded(parallel.own_tokens(tokens_BT) if parallel.sequence else tokens_BT)
    _, squares = jax.lax.scan(body, x_BTD, states)
    # Weights cut by columns have the same inputs on all devices of the tensor axis, which add up to one of them.
    copies = {name: 1 if axis == "rows" else parallel.tensor for name, axis in SHARD_AXES.items()}
    return {name: squares_LK / copies[name] for name, squares_LK in squares.items()}


def _observe(layer: DecoderLayer, counted_BT: jax.Array) -> dict[str, _Observed]:
    """Put an observer in the place of every linear layer; returns them by kind."""
    observed = {}
    for name in SHARD_AXES:
        room, kind = name.split(".")
        module = getattr(layer, room)
        observed[name] = _Observed(getattr(module, kind), counted_BT)
        setattr(module, kind, observed[name])
    return observed
