"""From what one device computes to the whole mesh: one ``shard_map``, and the sums over devices behind it.

Every device computes sums over its own tokens and gradients of the sum over all devices (``models/parallel.py`` says
why they are right). What the gradient of a parameter still lacks are the parts of the devices that hold a copy of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

from sparsejax.models.parallel import AXES, Parallel
from sparsejax.training.recipe import Recipe
from sparsejax.training.sharding import BATCH, axis_names, specs
from sparsejax.training.state import Tree

OfBatch = Callable[..., Any]


def on_mesh(
    recipe: Recipe, of_device: OfBatch, out_specs: Any, *, apart: bool = False, beside: tuple[Any, ...] = ()
) -> OfBatch:
    """A function of params, topology and targets ``[B, T]`` for whole arrays, from one for the parts of a device.

    Args:
      recipe: the run; without a mesh ``of_device`` comes back as it is.
      of_device: gives a tree of arrays, each the device's part of a sum over the devices.
      out_specs: ``PartitionSpec`` of every array. It is summed over the mesh axes that its spec does not name.
      apart: every replica has params and results of its own. Their arrays lead with an axis of replicas, which
        ``of_device`` does not see, and so do the specs: nothing is summed over it.
      beside: ``PartitionSpec`` trees of further arguments, behind the targets.
    """
    if recipe.mesh is None:
        return of_device

    def summed(params: Tree, topology: Tree, target_BT: jax.Array, *others: Tree) -> Any:
        parts = of_device(params, topology, target_BT, *others)
        return jax.tree.map(lambda part, spec: _total(recipe.parallel, part, spec), parts, out_specs)

    def of_replica(params: Tree, topology: Tree, target_BT: jax.Array) -> Any:
        total = summed(jax.tree.map(lambda leaf: leaf[0], params), topology, target_BT)
        return jax.tree.map(lambda leaf: leaf[None], total)

    params = specs(recipe, recipe.abstract.params, "outer/params/" if apart else "params/")
    topology = specs(recipe, recipe.abstract.topology, "topology/")
    # Pallas calls say nothing about how their results vary over the mesh, so JAX cannot check it.
    return jax.shard_map(
        of_replica if apart else summed,
        mesh=recipe.mesh,
        in_specs=(params, topology, BATCH, *beside),
        out_specs=out_specs,
        check_vma=False,
    )


def _total(parallel: Parallel, part: jax.Array, spec: PartitionSpec) -> jax.Array:
    named = {name for axis in spec for name in axis_names(axis)}
    over = parallel.named(*(name for name in AXES if name not in named))
    return jax.lax.psum(part, over) if over else part
