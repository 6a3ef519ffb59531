"""What a whole run had active and multiplied, averaged over its steps: more than one number where density falls."""

from __future__ import annotations

import dataclasses

from sparsejax.models.accounting import parameters
from sparsejax.models.weight_table import weight_table
from sparsejax.topology.density_path import decays
from sparsejax.training.recipe import Recipe
from sparsejax.training.rewire_plan import is_due
from sparsejax.training.throughput import Throughput


@dataclasses.dataclass(frozen=True)
class Spent:
    """Means over all steps of a run.

    Attributes:
      active_parameters: active parameters, the dense part included.
      executed: FLOPs per token that the programs execute.
      theoretical: FLOPs per token that the active parameters need.
    """

    active_parameters: float
    executed: float
    theoretical: float


def whole_run(recipe: Recipe) -> Spent:
    """Average over the steps of a run, each with the blocks it trained with."""
    lengths = {0: recipe.steps}
    if decays(recipe.run.topology):
        changes = [0, *(step for step in range(1, recipe.steps) if is_due(recipe, step))]
        ends = [*changes[1:], recipe.steps]
        lengths = {start: end - start for start, end in zip(changes, ends, strict=True)}
    active = executed = theoretical = 0.0
    stage = recipe.at_stage(0)
    for start, steps in lengths.items():
        table = weight_table(recipe.run.model, recipe.run.topology, start, recipe.steps)
        if {name: w.capacity for name, w in table.items()} != {name: w.capacity for name, w in stage.weights.items()}:
            stage = recipe.at_stage(start)
        flops = Throughput(dataclasses.replace(stage, weights=table))
        active += steps * parameters(recipe.shape, [weight.counted for weight in table.values()]).active
        executed += steps * flops.executed
        theoretical += steps * flops.theoretical
    return Spent(active / recipe.steps, executed / recipe.steps, theoretical / recipe.steps)
