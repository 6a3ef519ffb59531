"""What a rewiring changed, as numbers to log; and how large the first updates of regrown blocks are.

Axes: L layers, n slots. A block was *grown at the last rewiring* if its age is below the global count and at most the
number of steps since that rewiring.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.optim.sparse_adam import sparse_adam_state
from sparsejax.topology import stats
from sparsejax.topology.blocks import BlockGrid, Index, active_mask
from sparsejax.topology.initial import random_index
from sparsejax.topology.keys import weight_key
from sparsejax.topology.rewire import Rewiring
from sparsejax.training.recipe import Recipe, index_of, values_of, values_path
from sparsejax.training.state import Tree

Metrics = dict[str, jax.Array]


def regrown_update(recipe: Recipe, updates: Tree, topology: Tree, opt_state: Any) -> jax.Array:
    """Root mean square update of the blocks grown at the last rewiring over that of all other blocks; 0 without any.

    Under plain Adam with a global step count the first update of a regrown weight is ``(1 - b1) / sqrt(1 - b2)``
    learning rates, 3.16 with the usual decays (SMET, arXiv 2606.00888, section 3). This is where a log shows it.

    Args:
      recipe: the run.
      updates: of all parameters, the learning rate included.
      topology: index arrays during the update.
      opt_state: the optimizer state after the update.
    """
    adam = sparse_adam_state(opt_state)
    young_sum = young_size = old_sum = old_size = jnp.zeros((), jnp.float32)
    for name, weight in recipe.sparse.items():
        age_Ln = adam.ages[values_path(name)]
        active_Ln = active_in(index_of(topology, name), weight.grid)
        young_Ln = grown_last(age_Ln, adam.count, recipe.run.topology.every) & active_Ln
        square_Ln = jnp.sum(jnp.square(values_of(updates, name)), axis=(-2, -1))
        young_sum += jnp.sum(jnp.where(young_Ln, square_Ln, 0.0))
        old_sum += jnp.sum(jnp.where(active_Ln & ~young_Ln, square_Ln, 0.0))
        young_size += jnp.sum(young_Ln)
        old_size += jnp.sum(active_Ln & ~young_Ln)
    ratio = (young_sum / jnp.maximum(young_size, 1.0)) / jnp.maximum(old_sum / jnp.maximum(old_size, 1.0), 1e-38)
    return jnp.where(young_size > 0, jnp.sqrt(ratio), 0.0)


def grown_last(age: jax.Array, count: jax.Array, since: jax.Array | int) -> jax.Array:
    """Whether a block was grown at the last rewiring, ``since`` updates ago; the shape of ``age``."""
    return (age < count) & (age <= since)


def active_in(index: Index, grid: BlockGrid) -> jax.Array:
    """``[L, n]`` bool of a stacked index, False for free slots."""
    return jax.vmap(lambda one: active_mask(one, grid))(index)


def statistics(
    recipe: Recipe,
    name: str,
    before: Index,
    rewiring: Rewiring,
    grown_last_Ln: jax.Array,
    explored: jax.Array,
    seed: jax.Array,
) -> Metrics:
    """Numbers of one kind, averaged over its layers: ``topology/<what>/<kind>``.

    ``density``; ``churn``, the fraction of active blocks grown now; ``survival``, the fraction of the blocks grown at
    the last rewiring that are still there, NaN at the first one; ``initial_overlap``, the fraction of active blocks
    that the run started with; ``explored``, the fraction of places that ever had a block; ``moved``, the fraction of
    places whose state changed (the SAD of SR-STE, Zhou et al. 2021, over all places); ``dead_rows`` and
    ``dead_columns``.

    Args:
      recipe: the run.
      name: the kind.
      before: its stacked index before the rewiring.
      rewiring: stacked.
      grown_last_Ln: slots before the rewiring whose blocks were grown at the last one.
      explored: packed bits of the kind, this rewiring included.
      seed: of the topology; gives the initial one again, so nobody has to keep it.
    """
    weight = recipe.weights[name]
    grid = weight.grid
    layers = jnp.arange(recipe.run.model.layers)
    start = recipe.initial[name]

    def one_layer(old: Index, new: Index, old_slot: jax.Array, young: jax.Array, layer: jax.Array) -> Metrics:
        first = random_index(weight_key(seed, 0, name, layer), grid, start.count, start.capacity)
        dead_rows, dead_columns = stats.dead_lines(new, grid)
        return {
            "density": stats.density(new, grid),
            "churn": stats.churn(new, grid, old_slot),
            "survival": stats.survival(old_slot, young),
            "initial_overlap": stats.overlap(new, first, grid),
            "moved": stats.distance(old, new, grid),
            "dead_rows": dead_rows,
            "dead_columns": dead_columns,
        }

    by_layer = jax.vmap(one_layer)(before, rewiring.index, rewiring.old_slot, grown_last_Ln, layers)
    means = {f"topology/{key}/{name}": jnp.mean(value) for key, value in by_layer.items()}
    bits = jnp.sum(jax.lax.population_count(explored).astype(jnp.int32))
    return means | {f"topology/explored/{name}": bits / (grid.cells * layers.size)}
