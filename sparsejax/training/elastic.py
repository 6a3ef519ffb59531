"""A checkpoint back into a run, whatever the mesh that saved it and the mesh that continues.

Arrays are cut for the devices that are there. Two meshes may differ in the free slots that make the parts of their
devices even; such a checkpoint is read in its own slots first and then moved to those of the run.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from sparsejax.models.weight_table import SparseWeight, weight_table
from sparsejax.training import earlier_sums, programs
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.recipe import Recipe
from sparsejax.training.resize import resize, slots_of
from sparsejax.training.sharding import axis_names, placed, specs
from sparsejax.training.state import TrainState


def restore_newest(checkpoints: Checkpoints, recipe: Recipe) -> TrainState | None:
    """The newest checkpoint that can be read, on the recipe's mesh; None if the run has none.

    Raises:
      CheckpointError: there are checkpoints, but none can be read.
    """
    state = checkpoints.restore(lambda step: _as_saved(checkpoints, recipe.at_stage(step), step))
    return state if state is None else _in_ownslots_of(checkpoints, recipe, state)


def load_step(checkpoints: Checkpoints, recipe: Recipe, step: int) -> TrainState:
    """The checkpoint of one step, on the recipe's mesh.

    Raises:
      CheckpointError: there is none, or it cannot be read.
    """
    state = checkpoints.load(step, _as_saved(checkpoints, recipe.at_stage(step), step))
    return _in_ownslots_of(checkpoints, recipe, state)


def _in_ownslots_of(checkpoints: Checkpoints, recipe: Recipe, state: TrainState) -> TrainState:
    step = int(state.step)
    if earlier_sums.is_earlier(state) and recipe.run.topology.grow == "gradient_sum":
        checkpoints.tell(step, earlier_sums.NOTE)
        state = earlier_sums.with_first_gradients(state)
    later = recipe.at_stage(step)
    saved = _saved_weights(checkpoints, later, step)
    return state if slots_of(saved) == slots_of(later.sparse) else programs.resize_step(saved, later)(state)


def _as_saved(checkpoints: Checkpoints, recipe: Recipe, step: int) -> TrainState:
    """Shapes as the checkpoint has them, placed on the devices that are there."""
    saved = _saved_weights(checkpoints, recipe, step)
    if slots_of(saved) == slots_of(recipe.sparse):
        found = placed(recipe)
    else:
        shapes = jax.eval_shape(partial(resize, before=recipe.sparse, after=saved), recipe.abstract)
        places = specs(recipe, shapes)
        found = jax.tree.map(partial(_placed_where_even, recipe), shapes, places)
    if recipe.run.topology.grow != "gradient_sum":
        return found
    kept = checkpoints.shapes(step)
    return earlier_sums.as_saved(found, None if kept is None else kept["scores"])


def _placed_where_even(recipe: Recipe, leaf: jax.ShapeDtypeStruct, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
    """The leaf cut along the axes that its devices divide, whole along the others."""
    mesh = recipe.mesh
    if mesh is None:
        sharding: Any = SingleDeviceSharding(jax.devices()[0])
    else:
        parts = [math.prod(mesh.shape[name] for name in axis_names(axis)) for axis in spec]
        even = [axis if size % part == 0 else None for axis, size, part in zip(spec, leaf.shape, parts, strict=False)]
        sharding = NamedSharding(mesh, PartitionSpec(*even))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _saved_weights(checkpoints: Checkpoints, recipe: Recipe, step: int) -> dict[str, SparseWeight]:
    """The sparse kinds with the slots that they had on the mesh of the checkpoint."""
    config = checkpoints.config_of(step)
    # Checkpoints from before there were meshes are those of one device.
    fsdp = config["mesh"]["fsdp"] if "mesh" in config else 1
    table = weight_table(recipe.run.model, recipe.run.topology, recipe.stage, recipe.steps, fsdp=fsdp)
    return {name: table[name] for name in recipe.sparse}
