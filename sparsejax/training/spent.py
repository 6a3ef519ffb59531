"""What a whole run had active and multiplied, averaged over its steps: more than one number where density falls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from sparsejax.models.accounting import parameters
from sparsejax.topology.density_path import decays
from sparsejax.training.growth_scores import steps_scored
from sparsejax.training.recipe import Recipe
from sparsejax.training.resize import slots_of
from sparsejax.training.rewire_plan import is_due, rewirings
from sparsejax.training.throughput import score_flops, step_flops, weights_of_step


@dataclasses.dataclass(frozen=True)
class Spent:
    """Means over a run.

    Attributes:
      active_parameters: active parameters, the dense part included; over steps.
      executed: FLOPs per place in the batch that the train steps and the passes that score places execute.
        Evaluations, and the two losses logged at every rewiring, are left out.
      theoretical: FLOPs per token that the active parameters need.
    """

    active_parameters: float
    executed: float
    theoretical: float


def whole_run(recipe: Recipe, tokens_of: Callable[[int], int] = lambda steps: steps) -> Spent:
    """Average over the steps of a run, each with the blocks it trained with.

    ``tokens_of`` gives the tokens in the first so many steps; without it all steps have as many.
    """
    lengths = {0: recipe.steps}
    if decays(recipe.run.topology):
        changes = [0, *(step for step in range(1, recipe.steps) if is_due(recipe, step))]
        ends = [*changes[1:], recipe.steps]
        lengths = {start: end - start for start, end in zip(changes, ends, strict=True)}
    active = theoretical = 0.0
    executed = float(score_passes(recipe) * score_flops(recipe))
    stage = recipe.in_use_after(0)
    for start, steps in lengths.items():
        table = weights_of_step(recipe, start + 1)
        if slots_of(table) != slots_of(stage.weights):
            stage = recipe.in_use_after(start)
        flops = step_flops(stage, table)
        active += steps * parameters(recipe.shape, [weight.counted for weight in table.values()]).active
        executed += steps * flops.executed
        theoretical += (tokens_of(start + steps) - tokens_of(start)) * flops.theoretical
    return Spent(active / recipe.steps, executed / recipe.steps, theoretical / tokens_of(recipe.steps))


def score_passes(recipe: Recipe) -> int:
    """How often the score program runs in the whole run."""
    return rewirings(recipe) * steps_scored(recipe.run.topology)
