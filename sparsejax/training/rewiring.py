"""The rewiring program: drop and growth scores in, new topology, values and optimizer state out.

Axes: L layers, n slots, S shares, m cells of a share, R x C block rows and columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp

from sparsejax.models.sparse_linear import initial_std, initial_values
from sparsejax.models.weight_table import SparseWeight
from sparsejax.optim.sparse_adam import remap, sparse_adam_state
from sparsejax.topology import drop, growth, scores, stats
from sparsejax.topology.blocks import Index
from sparsejax.topology.keys import weight_key
from sparsejax.topology.rewire import Rewiring, candidates, choose_drops, regrow
from sparsejax.topology.slots import gather_slots
from sparsejax.training.growth_scores import Scores, batch_counts, one_batch_decides
from sparsejax.training.outer import rewired
from sparsejax.training.recipe import (
    Recipe,
    explored_bits,
    index_of,
    values_of,
    values_path,
    with_index,
    with_values,
)
from sparsejax.training.rewire_plan import RewirePlan
from sparsejax.training.rewire_statistics import Metrics, active_in, grown_last, over_layers, statistics
from sparsejax.training.state import TrainState, first_opt_state, for_each_replica

RewireStep = Callable[[TrainState, RewirePlan, Scores], tuple[TrainState, Metrics]]


def make_rewire_step(recipe: Recipe) -> RewireStep:
    """The rewiring program: state, plan and gradient scores in, new state and statistics out.

    Everything in the plan is traced, so one program serves every rate and step. Random numbers are folded from
    (topology seed, step, weight, layer, share). Regrown blocks have moments 0 and age 0, whatever their weights.
    Replicas that train apart rewire where they have just met: one choice, from the weights they agree on.

    A rule that looks at the gradient of one batch replaces nothing if that gradient is not finite or its step was
    skipped: nothing is known then.

    The statistics have, beside those of ``statistics``, ``topology/dropped`` and ``topology/replaced``: blocks that
    went and that came, over all kinds, layers and shares.
    """

    def rewire_step(state: TrainState, plan: RewirePlan, scored: Scores) -> tuple[TrainState, Metrics]:
        params, topology, explored = state.params, state.topology, dict(state.explored)
        if one_batch_decides(recipe.run.topology):
            plan = plan.unless(~batch_counts(state, scored))
        young = grown_last(recipe, topology, sparse_adam_state(first_opt_state(state)), plan.since)
        dropped = choose(recipe, state, plan, scored)
        grown = _grow_counts(recipe, state, plan, dropped)
        old_slots: dict[str, jax.Array] = {}
        metrics: Metrics = {"topology/dropped": jnp.int32(0), "topology/replaced": jnp.int32(0)}
        for name, weight in recipe.sparse.items():
            before = index_of(topology, name)
            gradient = scored.growth[name] if name in scored.growth else None
            rewiring = _regrow_kind(recipe, name, before, dropped[name], gradient, grown[name], state.step, plan)
            values = _new_values(recipe, name, values_of(params, name), rewiring, state.step, plan)
            params = with_values(params, name, values)
            topology = with_index(topology, name, rewiring.index)
            old_slots[values_path(name)] = rewiring.old_slot
            explored[name] = explored[name] | explored_bits(rewiring.index, weight.grid)
            came_Ln = stats.grown(active_in(rewiring.index, weight.grid), rewiring.old_slot)
            metrics["topology/replaced"] += jnp.sum(came_Ln, dtype=jnp.int32)
            metrics["topology/dropped"] += jnp.sum(dropped[name], dtype=jnp.int32)
            metrics |= statistics(recipe, name, before, dropped[name], rewiring, young[name], explored[name], plan.seed)
        move = partial(remap, old_slots=old_slots, shards=recipe.run.topology.shards, params=params)
        new_state = dataclasses.replace(
            state,
            params=params,
            topology=topology,
            opt_state=for_each_replica(state, move)(state.opt_state),
            outer=state.outer and rewired(recipe, state.outer, params, old_slots),
            explored=explored,
            scores={name: growth.forget(recipe.run.topology.grow, memory) for name, memory in state.scores.items()},
        )
        return new_state, metrics

    return rewire_step


def make_fade_step(recipe: Recipe) -> Callable[[TrainState, RewirePlan, jax.Array], TrainState]:
    """Multiply the blocks that the coming rewiring would drop now by a factor: state, plan and factor in, state out.

    An idea of ours against the damage of dropping: over ``topology.fade_steps`` steps the factors take these blocks
    to 0 linearly, so the others adapt before they are gone. They are chosen anew each time; as they shrink, they stay
    the smallest. After a step that was skipped they stay as they are.
    """

    def fade_step(state: TrainState, plan: RewirePlan, factor: jax.Array) -> TrainState:
        params = state.params
        factor = jnp.where(state.just_skipped, 1.0, factor)
        for name, mask_Ln in choose(recipe, state, plan, Scores({}, {})).items():
            values = values_of(params, name)
            params = with_values(params, name, jnp.where(mask_Ln[..., None, None], factor * values, values))
        return dataclasses.replace(state, params=params)

    return fade_step


def choose(recipe: Recipe, state: TrainState, plan: RewirePlan, scored: Scores) -> dict[str, jax.Array]:
    """The blocks of every kind that go, ``[L, n]`` bool."""
    topology = recipe.run.topology
    sparse = recipe.sparse
    if topology.drop == "global_magnitude":
        layers = recipe.run.model.layers
        counts = [layers * weight.grid.shards * plan.drop[name] for name, weight in sparse.items()]
        return drop.choose_globally(
            {name: values_of(state.params, name) for name in sparse},
            {name: active_in(index_of(state.topology, name), weight.grid) for name, weight in sparse.items()},
            {name: weight.grid.shards for name, weight in sparse.items()},
            jnp.sum(jnp.stack(counts)),
        )

    layers_L = jnp.arange(recipe.run.model.layers)

    def of_kind(name: str) -> jax.Array:
        grid, count = sparse[name].grid, plan.drop[name]

        def one_layer(index: Index, values: jax.Array, taylor: jax.Array | None, layer: jax.Array) -> jax.Array:
            key = weight_key(plan.seed, state.step, f"drop.{name}", layer)
            score, allowed = drop.scored(
                topology.drop, values, index, grid, topology.drop_threshold, plan.temperature, taylor, key, count
            )
            return choose_drops(index, grid, score, allowed, count, topology.regrow_dropped)

        taylor_Ln = scored.taylor[name] if name in scored.taylor else None
        return jax.vmap(one_layer)(index_of(state.topology, name), values_of(state.params, name), taylor_Ln, layers_L)

    return {name: of_kind(name) for name in sparse}


def _grow_counts(
    recipe: Recipe, state: TrainState, plan: RewirePlan, dropped: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Blocks each share of each layer grows, ``[L, S]`` int32."""
    layers, rule = recipe.run.model.layers, recipe.run.topology.drop
    lost = {
        name: jnp.sum(mask.reshape(layers, recipe.sparse[name].grid.shards, -1), axis=2, dtype=jnp.int32)
        for name, mask in dropped.items()
    }
    if rule == "threshold":
        # What goes depends on the weights; as many come back.
        return {name: jnp.minimum(lost[name], plan.grow[name]) for name in lost}
    wanted = {name: jnp.broadcast_to(plan.grow[name], lost[name].shape) for name in lost}
    if rule != "global_magnitude":
        return wanted
    room = {}
    for name, weight in recipe.sparse.items():
        active_Ln = active_in(index_of(state.topology, name), weight.grid)
        active_LS = jnp.sum(active_Ln.reshape(*lost[name].shape, -1), axis=2, dtype=jnp.int32)
        slots = weight.capacity // weight.grid.shards - active_LS + lost[name]
        room[name] = jnp.minimum(slots, weight.grid.cells_per_share - active_LS)
    return growth.fill_up(wanted, room)


def _regrow_kind(
    recipe: Recipe,
    name: str,
    before: Index,
    dropped_Ln: jax.Array,
    gradient_LSm: jax.Array | None,
    grown_LS: jax.Array,
    step: jax.Array,
    plan: RewirePlan,
) -> Rewiring:
    """Grow blocks of one kind in all its layers."""
    topology, grid = recipe.run.topology, recipe.sparse[name].grid

    def one_layer(
        index: Index, dropped: jax.Array, gradient_Sm: jax.Array | None, count_S: jax.Array, layer: jax.Array
    ) -> Rewiring:
        random_Sm = scores.random(weight_key(plan.seed, step, name, layer), grid)
        if topology.grow in ("none", "random"):
            score_Sm = random_Sm
        else:
            assert gradient_Sm is not None
            candidate_Sm = candidates(index, grid, dropped, topology.regrow_dropped)
            score_Sm = growth.order(
                topology.grow, grid, candidate_Sm, gradient_Sm, random_Sm, count_S, plan.by_gradient[name]
            )
        return regrow(index, grid, dropped, score_Sm, count_S, topology.regrow_dropped)

    layers_L = jnp.arange(recipe.run.model.layers)
    # Means of columns are sums of floats, whose order is that of the program.
    every_layer = jax.vmap(one_layer) if topology.grow == "momentum_neuron" else over_layers(recipe, name, one_layer)
    return every_layer(before, dropped_Ln, gradient_LSm, grown_LS, layers_L)


def _new_values(
    recipe: Recipe, name: str, values: jax.Array, rewiring: Rewiring, step: jax.Array, plan: RewirePlan
) -> jax.Array:
    """Values ``[L, n, bk, bn]`` after the rewiring: kept blocks move, grown ones start as ``regrow_value`` says."""
    shards = recipe.sparse[name].grid.shards
    kept = gather_slots(values, rewiring.old_slot, shards=shards)
    match recipe.run.topology.regrow_value:
        case "keep":
            return gather_slots(values, rewiring.former_slot, shards=shards)
        case "init":
            fresh = jax.vmap(lambda index, layer: _draw(recipe, recipe.sparse[name], index, step, plan, layer))(
                rewiring.index, jnp.arange(recipe.run.model.layers)
            )
            return jnp.where((rewiring.old_slot < 0)[..., None, None], fresh, kept)
    return kept


def _draw(
    recipe: Recipe, weight: SparseWeight, index: Index, step: jax.Array, plan: RewirePlan, layer: jax.Array
) -> jax.Array:
    model = recipe.run.model
    key = weight_key(plan.seed, step, f"regrow.{weight.name}", layer)
    return initial_values(key, index, weight.grid, initial_std(model.init, model.init_std, weight.density))
