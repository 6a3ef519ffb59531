"""From an NNX model to pure trees and back: what jitted programs, shardings and checkpoints handle.

Trees are plain nested dicts of arrays: ``params["layers"]["mlp"]["up"]["values"]``,
``topology["layers"]["mlp"]["up"]["rows"]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import nnx

from sparsejax.models.sparse_linear import TopologyIndex

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class AbstractModel:
    """A model without arrays.

    Attributes:
      graphdef: its static structure, hashable.
      params: tree of ``jax.ShapeDtypeStruct``, trainable.
      topology: tree of ``jax.ShapeDtypeStruct``: int32 indices, or the scalars of an N:M flow; empty for a dense model.
    """

    graphdef: nnx.GraphDef
    params: Tree
    topology: Tree


def abstract(build: Callable[[], nnx.Module]) -> AbstractModel:
    """Structure, shapes and dtypes of the model that ``build`` makes, without allocating it."""
    graphdef, *states = nnx.split(nnx.eval_shape(build), nnx.Param, TopologyIndex)
    params, topology = (nnx.to_pure_dict(state) for state in states)
    return AbstractModel(graphdef, params, topology)


def initial_trees(build: Callable[[], nnx.Module]) -> tuple[Tree, Tree]:
    """``(params, topology)`` of a new model. Pure: ``jax.jit(partial(initial_trees, build), out_shardings=...)``."""
    _, *states = nnx.split(build(), nnx.Param, TopologyIndex)
    params, topology = (nnx.to_pure_dict(state) for state in states)
    return params, topology


def merge(graphdef: nnx.GraphDef, params: Tree, topology: Tree) -> Any:
    """The model with these arrays, inside or outside a transformation; gradients flow to ``params``."""
    return nnx.merge(graphdef, nnx.State(params), nnx.State(topology))
