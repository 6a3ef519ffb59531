"""What growing by gradients costs in memory, beside growing at random: the programs of one run, compiled, not run.

    XLA_FLAGS=--xla_backend_optimization_level=0 python -m benchmarks.growth_memory --size 60m --block 16 --json g.json

"Peak" is the state plus the largest temporaries of the run's programs: train, score (gradient rules only), rewire.
A dense-model-sized buffer would be as large as the last column.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.measuring import conditions, table_line, write_json
from benchmarks.model_runs import recipe
from sparsejax.hardware.target import CPU
from sparsejax.models.sizes import SIZES
from sparsejax.training.growth_scores import Scores, make_score_step
from sparsejax.training.memory import measure, nbytes
from sparsejax.training.recipe import Recipe
from sparsejax.training.rewire_plan import plan_at
from sparsejax.training.rewiring import make_rewire_step
from sparsejax.training.steps import make_train_step

MIB = 1 << 20
TOKENS = 8  # few, so that weights outweigh activations
METHODS = {"smet": "random", "smet_rigl": "gradient", "momentum growth": "momentum"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One growth rule; bytes."""

    size: str
    density: float
    block: int
    method: str
    state: int
    train: int
    score: int
    rewire: int
    peak: int
    dense_weights: int


def parse_arguments() -> argparse.Namespace:
    """Command line; exits with 2 on a wrong value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="60m")
    parser.add_argument("--density", type=float, default=0.25)
    parser.add_argument("--block", type=int, nargs="+", default=(16,))
    parser.add_argument("--json", default="", help="file to write the rows and the conditions to")
    arguments = parser.parse_args()
    if not 0 < arguments.density < 1:
        parser.error("--density: must be in (0, 1)")
    return arguments


def temporaries(program: Any, *arguments: Any) -> int:
    """Bytes a compiled program needs beside its arguments and results."""
    compiled = jax.jit(program, donate_argnums=0).lower(*arguments).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def row_of(run: Recipe, method: str, block: int) -> Row:
    """Compile the programs of one run and add up."""
    grow = run.run.topology.grow
    target = jax.ShapeDtypeStruct((1, TOKENS), jnp.int32)
    scores, score = Scores({}, {}), 0
    if grow != "random":
        score_step = make_score_step(run)
        scores = jax.eval_shape(score_step, run.abstract, target)[1]
        # What the score program hands to the rewiring exists beside the state, so it counts.
        score = temporaries(score_step, run.abstract, target) + nbytes(scores)
    train = temporaries(make_train_step(run), run.abstract, target, run.rates)
    rewire = temporaries(make_rewire_step(run), run.abstract, plan_at(run, 100), scores)
    state = measure(run, run.abstract)[1]
    held = state.total - state.gradients
    dense = sum(weight.grid.shape[0] * weight.grid.shape[1] for weight in run.weights.values())
    return Row(
        size=run.run.model.size,
        density=run.run.topology.density,
        block=block,
        method=method,
        state=held,
        train=train,
        score=score,
        rewire=rewire,
        peak=held + max(train, score, rewire),
        dense_weights=4 * run.run.model.layers * dense,
    )


def main() -> None:
    """Print a Markdown table; write the JSON file if asked to."""
    arguments = parse_arguments()
    stated = conditions(arguments) | {"tokens": TOKENS}
    print(" ".join(f"{name}={value}" for name, value in stated.items()))
    columns = ("size", "density", "block", "method", "state", "train", "score", "rewire", "peak", "dense weights")
    print(table_line(columns))
    print(table_line(["---"] * len(columns)))
    rows: list[Row] = []
    for block in arguments.block:
        for method, grow in METHODS.items():
            run = recipe(
                arguments.size,
                arguments.density,
                block,
                "none",
                rows=1,
                length=TOKENS,
                compute_dtype="float32",
                remat="none",
                target=CPU,
                grow=grow,
            )
            row = row_of(run, method, block)
            rows.append(row)
            counts = (row.state, row.train, row.score, row.rewire, row.peak, row.dense_weights)
            cells = (row.size, row.density, row.block, row.method, *(f"{count / MIB:.1f}" for count in counts))
            print(table_line(cells), flush=True)
    write_json(arguments.json, stated, rows)


if __name__ == "__main__":
    main()
