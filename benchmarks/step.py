"""Time of a whole train step beside its dense twin's, in one run.

    python -m benchmarks.step --size 60m --density 0.25 --block 32 128 --balance none column --rows 4

Loss, both gradients, clipping and sparse Adam, on random tokens. Every repetition times the dense twin and every
sparse variant once, in turn; a ratio divides medians of the same run. "fastest" divides the shortest times,
"processor" the least processor seconds: where other programs share the machine these two say more than the median.
Each block has a twin of its own, because the MLP width is rounded up to a multiple of the block. Rewiring is timed
apart: it happens once in a hundred steps.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring import conditions, interleaved, table_line, write_json
from benchmarks.model_runs import VOCABULARY, recipe
from sparsejax.hardware.target import target_of
from sparsejax.models.sizes import SIZES
from sparsejax.training.growth_scores import NO_SCORES
from sparsejax.training.recipe import Recipe, init_state
from sparsejax.training.rewire_plan import plan_at
from sparsejax.training.rewiring import make_rewire_step
from sparsejax.training.steps import make_train_step


@dataclasses.dataclass(frozen=True)
class Row:
    """One variant; times in milliseconds."""

    block: int
    balance: str
    density: float
    implementations: str
    median_ms: float
    fastest_ms: float
    spread: float  # (75th - 25th percentile) / median
    over_twin: float
    fastest_over_twin: float
    processor_over_twin: float
    tokens_per_second: float
    temporary_bytes: int
    rewire_ms: float


def parse_arguments() -> argparse.Namespace:
    """The command line; a bad flag exits with 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="60m", metavar="SIZE")
    parser.add_argument("--density", type=float, nargs="+", default=(0.25,))
    parser.add_argument("--block", type=int, nargs="+", default=(32, 128))
    parser.add_argument("--balance", nargs="+", choices=("none", "column"), default=("none", "column"))
    parser.add_argument("--rows", type=int, default=4, help="rows of a batch")
    parser.add_argument("--length", type=int, default=256, help="tokens of a row")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="none")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--json", default="", help="file to write the rows and the conditions to")
    arguments = parser.parse_args()
    if not all(0 < density < 1 for density in arguments.density):
        parser.error("--density: must be in (0, 1); the dense twin is always there")
    if min(arguments.rows, arguments.length, arguments.repetitions) < 1:
        parser.error("--rows, --length and --repetitions: must be at least 1")
    return arguments


class Variant:
    """A compiled train step with the state it moves on."""

    def __init__(self, run: Recipe, target_BT: np.ndarray) -> None:
        """Compile; the state is made here too."""
        self.run = run
        self.state = init_state(run)
        self.target_BT = jnp.asarray(target_BT)
        self.rates = run.rates
        lowered = jax.jit(make_train_step(run), donate_argnums=0).lower(self.state, self.target_BT, self.rates)
        self.compiled = lowered.compile()

    def step(self) -> Any:
        """One train step; returns all it made, to be waited for."""
        self.state, metrics = self.compiled(self.state, self.target_BT, self.rates)
        return self.state, metrics

    def rewire_milliseconds(self) -> float:
        """Time of one rewiring; 0 for a dense run."""
        if not self.run.rewires:
            return 0.0
        rewire: Callable[..., Any] = jax.jit(make_rewire_step(self.run))
        plan = plan_at(self.run, self.run.run.topology.every)
        return (
            1e3 * interleaved({"rewire": lambda: rewire(self.state, plan, NO_SCORES)}, repetitions=2)["rewire"].median
        )


def measure_block(arguments: argparse.Namespace, block: int) -> list[Row]:
    """The dense twin and all sparse variants of one block size, interleaved."""

    def at(density: float, balance: str) -> Recipe:
        return recipe(
            arguments.size,
            density,
            block,
            balance,
            rows=arguments.rows,
            length=arguments.length,
            compute_dtype=arguments.dtype,
            remat=arguments.remat,
            target=target_of(jax.devices()[0]),
        )

    target_BT = np.random.default_rng(0).integers(0, VOCABULARY, (arguments.rows, arguments.length), np.int32)
    places = [(1.0, "none"), *((d, b) for b in arguments.balance for d in arguments.density)]
    variants = {f"{density} {balance}": Variant(at(density, balance), target_BT) for density, balance in places}
    times = interleaved({name: variant.step for name, variant in variants.items()}, arguments.repetitions)
    twin = times["1.0 none"]
    rows = []
    for (density, balance), (name, variant) in zip(places, variants.items(), strict=True):
        mine = times[name]
        rows.append(
            Row(
                block=block,
                balance=balance,
                density=density,
                implementations=",".join(sorted(set(variant.run.implementations.values()))) or "dense",
                median_ms=1e3 * mine.median,
                fastest_ms=1e3 * min(mine.wall),
                spread=mine.spread,
                over_twin=mine.median / twin.median,
                fastest_over_twin=min(mine.wall) / min(twin.wall),
                processor_over_twin=min(mine.processor) / min(twin.processor),
                tokens_per_second=arguments.rows * arguments.length / mine.median,
                temporary_bytes=int(variant.compiled.memory_analysis().temp_size_in_bytes),
                rewire_ms=variant.rewire_milliseconds(),
            )
        )
    return rows


def main() -> None:
    """Print a Markdown table; write the JSON file if asked to."""
    arguments = parse_arguments()
    stated = conditions(arguments)
    print(" ".join(f"{name}={value}" for name, value in stated.items()))
    columns = (
        "block",
        "balance",
        "density",
        "block_matmul",
        "median ms",
        "spread",
        "over twin",
        "fastest",
        "processor",
    )
    print(table_line((*columns, "tokens/s", "temporaries MiB", "rewire ms")))
    print(table_line(["---"] * (len(columns) + 3)))
    rows: list[Row] = []
    for block in arguments.block:
        for row in measure_block(arguments, block):
            rows.append(row)
            cells = [row.block, row.balance, f"{row.density:g}", row.implementations, f"{row.median_ms:.0f}"]
            cells += [f"{row.spread:.2f}", f"{row.over_twin:.2f}", f"{row.fastest_over_twin:.2f}"]
            cells += [f"{row.processor_over_twin:.2f}", f"{row.tokens_per_second:.0f}"]
            print(table_line([*cells, f"{row.temporary_bytes / 2**20:.0f}", f"{row.rewire_ms:.0f}"]), flush=True)
    write_json(arguments.json, stated, rows)


if __name__ == "__main__":
    main()
