"""Time of a rewiring beside that of a train step, for small blocks, where a weight has millions of places.

    python -m benchmarks.rewiring --size 60m --density 0.25 --block 1 --grow random gradient

Scores of gradient rules are drawn, so that the time is that of the choice alone: the score program is about a train
step of its own. Every repetition times the step and all rewirings once, in turn. "fastest" divides the shortest times:
on a CPU that other programs share it says more than the median.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring import Times, interleaved, report
from benchmarks.model_runs import VOCABULARY, recipe
from sparsejax.hardware.target import target_of
from sparsejax.models.sizes import SIZES
from sparsejax.topology.growth import SCORED
from sparsejax.training.growth_scores import NO_SCORES, Scores
from sparsejax.training.programs import init_state
from sparsejax.training.recipe import Recipe
from sparsejax.training.rewire_plan import plan_at
from sparsejax.training.rewiring import make_rewire_step
from sparsejax.training.state import TrainState
from sparsejax.training.steps import make_train_step


@dataclasses.dataclass(frozen=True)
class Row:
    """One growth rule on one size and block; times in milliseconds."""

    size: str
    density: float
    block: int
    grow: str
    places: int
    step_ms: float
    rewire_ms: float
    over_step: float
    fastest: float


def parse_arguments() -> argparse.Namespace:
    """Command line; exits with 2 on a wrong value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="60m")
    parser.add_argument("--layers", type=int, default=0, help="instead of the published number")
    parser.add_argument("--density", type=float, default=0.25)
    parser.add_argument("--block", type=int, nargs="+", default=(1,))
    parser.add_argument("--grow", nargs="+", choices=("random", "gradient", "momentum"), default=("random", "gradient"))
    parser.add_argument("--rows", type=int, default=4, help="rows of a batch")
    parser.add_argument("--length", type=int, default=256, help="tokens of a row")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", default="", help="file to write the rows and the conditions to")
    arguments = parser.parse_args()
    if not 0 < arguments.density < 1:
        parser.error("--density: must be in (0, 1)")
    return arguments


def drawn_scores(run: Recipe) -> Scores:
    """Scores of every place as a gradient would leave them, or none where the rule looks at none."""
    if run.run.topology.grow not in SCORED:
        return NO_SCORES
    drawn = {}
    for number, (name, weight) in enumerate(run.sparse.items()):
        shape = (run.run.model.layers, weight.grid.shards, weight.grid.cells_per_share)
        drawn[name] = jax.random.uniform(jax.random.key(number), shape, jnp.float32)
    return Scores(drawn, {})


def rewiring_of(run: Recipe, state: TrainState) -> Callable[[], Any]:
    """One rewiring of the state, which stays as it is."""
    program = jax.jit(make_rewire_step(run))
    plan, scores = plan_at(run, run.run.topology.every), drawn_scores(run)
    return lambda: program(state, plan, scores)


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Every block and rule; the step is that of the first rule, since growth is no part of it."""
    target_BT = np.random.default_rng(0).integers(0, VOCABULARY, (arguments.rows, arguments.length), np.int32)
    for block in arguments.block:
        runs = {
            grow: recipe(
                arguments.size,
                arguments.density,
                block,
                "none",
                rows=arguments.rows,
                length=arguments.length,
                compute_dtype="float32",
                remat="none",
                target=target_of(jax.devices()[0]),
                grow=grow,
                layers=arguments.layers or None,
            )
            for grow in arguments.grow
        }
        first = runs[arguments.grow[0]]
        state = init_state(first)
        step = functools.partial(jax.jit(make_train_step(first)), state, target_BT, first.rates)
        programs = {"step": step} | {grow: rewiring_of(run, state) for grow, run in runs.items()}
        times = interleaved(programs, arguments.repetitions)
        places = sum(weight.grid.cells for weight in first.sparse.values()) * first.run.model.layers
        for grow in runs:
            yield row_of(arguments, block, grow, places, times["step"], times[grow])


def row_of(arguments: argparse.Namespace, block: int, grow: str, places: int, step: Times, rewire: Times) -> Row:
    """The figures of one rule."""
    return Row(
        size=arguments.size,
        density=arguments.density,
        block=block,
        grow=grow,
        places=places,
        step_ms=1e3 * step.median,
        rewire_ms=1e3 * rewire.median,
        over_step=rewire.median / step.median,
        fastest=min(rewire.wall) / min(step.wall),
    )


def main() -> None:
    """Print a Markdown table; write the JSON file if asked to."""
    arguments = parse_arguments()
    columns = ("size", "density", "block", "grow", "places", "step ms", "rewire ms", "over step", "fastest")
    report(
        [arguments],
        columns,
        measure(arguments),
        lambda row: (
            *(row.size, row.density, row.block, row.grow, row.places),
            *(f"{row.step_ms:.0f}", f"{row.rewire_ms:.0f}", f"{row.over_step:.2f}", f"{row.fastest:.2f}"),
        ),
    )


if __name__ == "__main__":
    main()
