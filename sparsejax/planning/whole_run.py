"""A run as a whole, where its steps are not all alike: densities that fall, and passes that score places.

Bytes are asked for at the first step, which needs most. FLOPs, traffic and times are means over all steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsejax.models.accounting import parameters
from sparsejax.planning import floor
from sparsejax.topology.density_path import decays, stair_steps
from sparsejax.training.recipe import Recipe
from sparsejax.training.spent import Spent


def stages(recipe: Recipe) -> list[tuple[float, Recipe]]:
    """The recipes whose programs the run has one after another, each with its share of the steps."""
    if not decays(recipe.run.topology):
        return [(1.0, recipe)]
    starts = [0, *stair_steps(recipe.run.topology, recipe.steps)]
    ends = [*starts[1:], recipe.steps]
    return [((end - start) / recipe.steps, recipe.in_use_after(start)) for start, end in zip(starts, ends, strict=True)]


def mean_density(recipe: Recipe, spent: Spent) -> float:
    """Share of the maskable weights that are active, averaged over the steps."""
    count = parameters(recipe.shape, [weight.counted for weight in recipe.weights.values()])
    return (spent.active_parameters - count.dense_part) / count.maskable


def mean_times(times: Sequence[tuple[float, floor.Times]]) -> floor.Times:
    """Every time averaged with its share of the steps."""
    links: dict[tuple[str, ...], float] = {}
    for share, each in times:
        add_links(links, share, each.links)
    compute, memory = (sum(share * getattr(each, name) for share, each in times) for name in ("compute", "memory"))
    return floor.Times(compute=compute, memory=memory, links=links)


def add_links(links: dict[tuple[str, ...], float], share: float, more: Mapping[tuple[str, ...], float]) -> None:
    """Add a share of the seconds over every set of axes."""
    for axes, seconds in more.items():
        links[axes] = links.get(axes, 0.0) + share * seconds
