"""Bytes of a training run beside its dense twin: state by kind, and temporaries of the compiled step.

    python -m benchmarks.memory --size 60m 130m --density 1 0.5 0.25 0.125 --block 16

State bytes are read off the (abstract) arrays of the run, temporaries off the compiler, for a batch of 8 tokens:
so small that weights and gradients, not activations, are what a step holds. Nothing is trained.
"""

from __future__ import annotations

import argparse
import dataclasses

import jax
import jax.numpy as jnp

from benchmarks.measuring import conditions, table_line, write_json
from benchmarks.model_runs import recipe
from sparsejax.hardware.target import CPU
from sparsejax.models.sizes import SIZES
from sparsejax.training.memory import measure
from sparsejax.training.recipe import Recipe
from sparsejax.training.steps import make_train_step

TOKENS = 8
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Row:
    """One run; bytes of its seven maskable kinds of weight, and of everything."""

    size: str
    density: float
    block: int
    values: int
    indices_and_ages: int
    moments: int
    gradients: int
    over_twin: float
    whole_state: int
    whole_over_twin: float
    temporaries: int
    temporaries_saved_over_gradients_saved: float


def parse_arguments() -> argparse.Namespace:
    """The command line; a bad flag exits with 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=tuple(SIZES), default=("60m", "130m"), metavar="SIZE")
    parser.add_argument("--density", type=float, nargs="+", default=(1.0, 0.5, 0.25, 0.125))
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--json", default="", help="file to write the rows and the conditions to")
    arguments = parser.parse_args()
    if not all(0 < density <= 1 for density in arguments.density):
        parser.error("--density: must be in (0, 1]")
    return arguments


def temporaries(run: Recipe) -> int:
    """Bytes the compiled train step needs beside its arguments and results."""
    target = jax.ShapeDtypeStruct((1, TOKENS), jnp.int32)
    compiled = jax.jit(make_train_step(run), donate_argnums=0).lower(run.abstract, target, run.rates).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def rows_of(size: str, densities: list[float], block: int) -> list[Row]:
    """One row a density; the dense twin is always measured."""

    def at(density: float) -> Recipe:
        return recipe(
            size, density, block, "none", rows=1, length=TOKENS, compute_dtype="float32", remat="none", target=CPU
        )

    twin = at(1.0)
    twin_part, twin_whole = measure(twin, twin.abstract)
    twin_temporaries = temporaries(twin)
    rows = []
    for density in densities:
        run = at(density)
        part, whole = measure(run, run.abstract)
        held = temporaries(run)
        saved = twin_part.gradients - part.gradients
        rows.append(
            Row(
                size=size,
                density=density,
                block=block,
                values=part.values,
                indices_and_ages=part.indices + part.ages,
                moments=part.moments,
                gradients=part.gradients,
                over_twin=part.total / twin_part.total,
                whole_state=whole.total,
                whole_over_twin=whole.total / twin_whole.total,
                temporaries=held,
                temporaries_saved_over_gradients_saved=(twin_temporaries - held) / saved if saved else 0.0,
            )
        )
    return rows


def main() -> None:
    """Print a Markdown table; write the JSON file if asked to."""
    arguments = parse_arguments()
    stated = conditions(arguments) | {"tokens": TOKENS}
    print(" ".join(f"{name}={value}" for name, value in stated.items()))
    columns = ("size", "density", "values", "indices + ages", "moments", "gradients", "over twin", "whole state")
    print(table_line((*columns, "over twin", "step temporaries", "saved / gradients saved")))
    print(table_line(["---"] * (len(columns) + 3)))
    rows: list[Row] = []
    for size in arguments.size:
        for row in rows_of(size, list(arguments.density), arguments.block):
            rows.append(row)
            parts = (row.values, row.indices_and_ages, row.moments, row.gradients)
            cells = [row.size, f"{row.density:g}", *(f"{part / MIB:.1f}" for part in parts), f"{row.over_twin:.4f}"]
            cells += [f"{row.whole_state / MIB:.1f}", f"{row.whole_over_twin:.3f}", f"{row.temporaries / MIB:.1f}"]
            print(table_line([*cells, f"{row.temporaries_saved_over_gradients_saved:.3f}"]), flush=True)
    write_json(arguments.json, stated, rows)


if __name__ == "__main__":
    main()
