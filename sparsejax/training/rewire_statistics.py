"""What a rewiring changed, as numbers to log; and how large the first updates of regrown blocks are.

Axes: L layers, n slots. Blocks *grown at the last rewiring* are the youngest of all kinds, and at most as old as the
steps since then: a step that was skipped makes no block older, so their age alone does not tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.optim.sparse_adam import SparseAdamState, sparse_adam_state
from sparsejax.topology import stats
from sparsejax.topology.blocks import BlockGrid, Index, active_mask
from sparsejax.topology.initial import random_mask
from sparsejax.topology.keys import weight_key
from sparsejax.topology.rewire import Rewiring
from sparsejax.topology.scores import by_share
from sparsejax.training.recipe import Recipe, index_of, values_of, values_path
from sparsejax.training.state import Tree

Metrics = dict[str, jax.Array]

# Places of a layer from which its layers are rewired one after another.
_MANY_PLACES = 2**16


def regrown_update(recipe: Recipe, updates: Tree, topology: Tree, opt_state: Any) -> jax.Array:
    """Root mean square of the first update of regrown blocks over that of all other blocks; 0 if there are none.

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
        young_Ln = (age_Ln < adam.count) & (age_Ln <= 1) & active_Ln
        square_Ln = jnp.sum(jnp.square(values_of(updates, name)), axis=(-2, -1))
        young_sum += jnp.sum(jnp.where(young_Ln, square_Ln, 0.0))
        old_sum += jnp.sum(jnp.where(active_Ln & ~young_Ln, square_Ln, 0.0))
        young_size += jnp.sum(young_Ln)
        old_size += jnp.sum(active_Ln & ~young_Ln)
    ratio = (young_sum / jnp.maximum(young_size, 1.0)) / jnp.maximum(old_sum / jnp.maximum(old_size, 1.0), 1e-38)
    return jnp.where(young_size > 0, jnp.sqrt(ratio), 0.0)


def grown_last(recipe: Recipe, topology: Tree, adam: SparseAdamState, since: jax.Array) -> dict[str, jax.Array]:
    """For every sparse kind the slots ``[L, n]`` bool of blocks grown at the last rewiring, ``since`` steps ago."""
    active = {name: active_in(index_of(topology, name), weight.grid) for name, weight in recipe.sparse.items()}
    ages = {name: jnp.where(active[name], adam.ages[values_path(name)], adam.count) for name in active}
    youngest = jnp.min(jnp.stack([jnp.min(age) for age in ages.values()]))
    recent = (youngest < adam.count) & (youngest <= since)
    return {name: active[name] & (age == youngest) & recent for name, age in ages.items()}


def over_layers(recipe: Recipe, name: str, one_layer: Callable[..., Any]) -> Callable[..., Any]:
    """``one_layer`` for all layers of a kind: at once, or one after another where a layer has very many places.

    With blocks of a few elements the arrays of one layer fit into caches that those of all layers do not, and only one
    layer's temporaries exist. On a mesh all layers stay together.
    """
    if recipe.mesh is not None or recipe.sparse[name].grid.cells < _MANY_PLACES:
        return jax.vmap(one_layer)
    return lambda *arguments: jax.lax.map(lambda layer: one_layer(*layer), arguments)


def active_in(index: Index, grid: BlockGrid) -> jax.Array:
    """``[L, n]`` bool of a stacked index, False for free slots."""
    return jax.vmap(lambda one: active_mask(one, grid))(index)


def statistics(
    recipe: Recipe,
    name: str,
    before: Index,
    dropped_Ln: jax.Array,
    rewiring: Rewiring,
    grown_last_Ln: jax.Array,
    explored: jax.Array,
    seed: jax.Array,
) -> Metrics:
    """Numbers of one kind over all its layers: ``topology/<what>/<kind>``.

    ``density``; ``churn``, the fraction of active blocks grown now; ``survival``, the fraction of the blocks grown at
    the last rewiring that are still there, NaN at the first one; ``initial_overlap``, the fraction of active blocks
    that the run started with, left out where it began from dense weights, whose first topology no seed gives;
    ``explored``, the fraction of places that ever had a block; ``moved``, the fraction of
    places whose state changed (the SAD of SR-STE, Zhou et al. 2021, over all places); ``dead_rows`` and
    ``dead_columns``.

    Args:
      recipe: the run.
      name: the kind.
      before: its stacked index before the rewiring.
      dropped_Ln: slots before the rewiring whose blocks went.
      rewiring: stacked.
      grown_last_Ln: slots before the rewiring whose blocks were grown at the last one.
      explored: packed bits of the kind, this rewiring included.
      seed: of the topology; gives the initial one again, so nobody has to keep it.
    """
    grid, start = recipe.weights[name].grid, recipe.initial[name]
    layers = jnp.arange(recipe.run.model.layers)

    def places(index: Index) -> jax.Array:
        return by_share(stats.activity(index, grid), grid)

    def first(layer: jax.Array) -> jax.Array:
        return random_mask(weight_key(seed, 0, name, layer), grid, start.count)

    def of_layer(old: Index, new: Index) -> Metrics:
        dead_rows, dead_columns = stats.dead_lines(new, grid)
        return {
            "density": stats.density(new, grid),
            "moved": stats.distance(old, new, grid),
            "dead_rows": dead_rows,
            "dead_columns": dead_columns,
        }

    by_layer = over_layers(recipe, name, of_layer)(before, rewiring.index)
    found = {key: jnp.mean(value) for key, value in by_layer.items()}
    found["churn"] = stats.churn(active_in(rewiring.index, grid), rewiring.old_slot)
    found["survival"] = stats.survival(grown_last_Ln, dropped_Ln)
    if not recipe.run.init.from_:
        now_LSm = over_layers(recipe, name, places)(rewiring.index)
        found["initial_overlap"] = stats.overlap(now_LSm, over_layers(recipe, name, first)(layers))
    bits = jnp.sum(jax.lax.population_count(explored).astype(jnp.int32))
    found["explored"] = bits / (grid.cells * layers.size)
    return {f"topology/{key}/{name}": value for key, value in found.items()}
