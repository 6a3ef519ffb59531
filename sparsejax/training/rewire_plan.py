"""What one rewiring shall do, decided on the host in integers: when, how many blocks go, how many come."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from sparsejax.models.weight_table import SparseWeight, weight_table
from sparsejax.topology import growth
from sparsejax.topology.density_path import decays
from sparsejax.topology.keys import seed_argument
from sparsejax.topology.rewire import drop_count
from sparsejax.topology.schedules import drop_rate, interpolate, last_rewiring_step, rewires_after
from sparsejax.training.recipe import Recipe


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RewirePlan:
    """Arguments of the rewiring program; scalars, so that no number in here compiles anything.

    Attributes:
      drop: blocks each share of a kind drops, int32; under ``drop="global_magnitude"`` the shares' mean.
      grow: blocks each share grows, int32; under ``drop="global_magnitude"`` what it grows if it has the slots.
      by_gradient: blocks each share grows by gradient under ``grow="mix"``, int32.
      temperature: exponent of ``drop="soft"``, float32.
      since: steps since the last rewiring, int32.
      seed: of the topology, uint32.
    """

    drop: dict[str, jax.Array]
    grow: dict[str, jax.Array]
    by_gradient: dict[str, jax.Array]
    temperature: jax.Array
    since: jax.Array
    seed: jax.Array

    def unless(self, prevented: jax.Array) -> RewirePlan:
        """The plan, or one that replaces nothing where ``prevented``, a bool scalar, is True."""
        drop, grow, by_gradient = jax.tree.map(
            lambda count: jnp.where(prevented, 0, count), (self.drop, self.grow, self.by_gradient)
        )
        return dataclasses.replace(self, drop=drop, grow=grow, by_gradient=by_gradient)


def is_due(recipe: Recipe, step: int) -> bool:
    """Whether the topology changes after optimizer step number ``step``."""
    topology = recipe.run.topology
    return recipe.rewires and rewires_after(step, topology.every, recipe.steps, topology.stop_fraction)


def rewirings(recipe: Recipe) -> int:
    """How often the topology changes in the whole run."""
    topology = recipe.run.topology
    return max(last_rewiring_step(recipe.steps, topology.stop_fraction), 0) // topology.every if recipe.rewires else 0


def next_due(recipe: Recipe, step: int) -> int | None:
    """The first step not before ``step`` after which the topology changes; None if it stays."""
    every = recipe.run.topology.every
    candidate = -(-step // every) * every
    return candidate if is_due(recipe, candidate) else None


def rate_at(recipe: Recipe, step: int) -> float:
    """Share of the active blocks that the rewiring after ``step`` replaces; 0 where density falls and nothing grows."""
    topology = recipe.run.topology
    if decays(topology):
        return 0.0
    return drop_rate(
        topology.rate_schedule, topology.rate, topology.rate_end, step, recipe.steps, topology.stop_fraction
    )


def temperature_at(recipe: Recipe, step: int) -> float:
    """Exponent of ``drop="soft"`` in the rewiring after ``step``."""
    topology = recipe.run.topology
    last = round(topology.stop_fraction * recipe.steps)
    return interpolate("linear", topology.temperature, topology.temperature_end, step, last)


def plan_at(recipe: Recipe, step: int) -> RewirePlan:
    """The plan of the rewiring after ``step``, a pure function of the run and the step."""
    topology = recipe.run.topology
    drop, grow = {}, {}
    for name, weight in recipe.sparse.items():
        dropped, grown = _counts(recipe, weight, step)
        drop[name], grow[name] = dropped, grown
    return RewirePlan(
        drop={name: jnp.int32(count) for name, count in drop.items()},
        grow={name: jnp.int32(count) for name, count in grow.items()},
        by_gradient={name: jnp.int32(growth.mixed_count(count, topology.mix)) for name, count in grow.items()},
        temperature=jnp.float32(temperature_at(recipe, step)),
        since=jnp.int32(topology.every),
        seed=jnp.asarray(seed_argument(recipe.run.seeds.topology)),
    )


def _counts(recipe: Recipe, weight: SparseWeight, step: int) -> tuple[int, int]:
    """Blocks a share of this kind drops and grows after ``step``."""
    topology, shards = recipe.run.topology, weight.grid.shards
    if decays(topology):
        before, after = (
            weight_table(recipe.run.model, topology, at, recipe.steps)[weight.name].count
            for at in (step - topology.every, step)
        )
        return (before - after) // shards, 0
    count = drop_count(rate_at(recipe, step), weight.grid, weight.count // shards, topology.regrow_dropped)
    return count, count
