"""Time and memory of a whole train step beside its dense twin's, in one run.

    python -m benchmarks.step --preset cpu --json step.json
    python -m benchmarks.step --preset gpu --json step.json
    python -m benchmarks.step --size 60m --density 0.25 --block 32 128 --balance none column --rows 4

Loss, both gradients, clipping and sparse Adam, on random tokens. Every repetition times the dense twin and every
sparse variant once, in turn; a ratio divides medians of the same run. "fastest" divides the shortest times,
"processor" the least processor seconds: on a CPU that other programs share these two say more than the median.
Each block has a twin of its own, because the MLP width is rounded up to a multiple of the block. "state" is what
lives between steps (parameters, indices, optimizer), "temporaries" what a step needs beside it. Rewiring is timed
apart: it happens once in a hundred steps. With --layers a model has fewer layers than published, all alike: where the
twin would not fit. The share of embedding and head is then larger than in the published model.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring import Times, interleaved, report
from benchmarks.model_runs import VOCABULARY, recipe
from sparsejax.config import ConfigError
from sparsejax.hardware.target import target_of
from sparsejax.kernels.api import IMPLEMENTATIONS
from sparsejax.kernels.auto import KERNELS
from sparsejax.models.sizes import SIZES
from sparsejax.training.growth_scores import NO_SCORES
from sparsejax.training.memory import nbytes
from sparsejax.training.programs import init_state
from sparsejax.training.recipe import Recipe
from sparsejax.training.rewire_plan import plan_at
from sparsejax.training.rewiring import make_rewire_step
from sparsejax.training.steps import make_train_step

MIB = 1 << 20
_NAMES = ("auto", *(name for name in IMPLEMENTATIONS if "@" not in name), *KERNELS)

# What docs/PERFORMANCE.md shows: the flags of the runs that make up one table.
PRESETS = {
    "cpu": (
        "--size 60m 130m --block 128 --balance column --density 0.5 0.25 0.125 --rows 4 --length 256",
        "--size 350m --block 128 --balance column --density 0.5 0.25 0.125 --rows 2 --length 256",
        "--size 1b --layers 4 --block 128 --balance column --density 0.5 0.25 0.125 --rows 2 --length 256",
    ),
    "gpu": (
        "--size 60m 130m 350m --block 128 --balance none --density 0.5 0.25 0.125 --rows 16 --length 1024"
        " --dtype bfloat16 --implementation pallas_gpu",
        "--size 1b --block 128 --balance none --density 0.5 0.25 0.125 --rows 8 --length 1024"
        " --dtype bfloat16 --implementation pallas_gpu",
    ),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One variant; times in milliseconds. Density 1 is the dense twin."""

    size: str
    layers: int
    block: int
    balance: str
    density: float
    implementations: str
    tokens: int
    median_ms: float
    fastest_ms: float
    spread: float  # (75th - 25th percentile) / median
    over_twin: float
    fastest_over_twin: float
    processor_over_twin: float
    tokens_per_second: float
    state_bytes: int
    temporary_bytes: int
    rewire_ms: float


def parse_arguments(argv: Sequence[str] | None = None) -> list[argparse.Namespace]:
    """The runs that the command line asks for, those of a preset or one; argparse exits with 2 on a bad flag."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=tuple(PRESETS), help="the runs of one of our tables")
    parser.add_argument("--size", nargs="+", choices=tuple(SIZES), default=("60m",), metavar="SIZE")
    parser.add_argument("--layers", type=int, help="instead of the published number")
    parser.add_argument("--density", type=float, nargs="+", default=(0.25,))
    parser.add_argument("--block", type=int, nargs="+", default=(32, 128))
    parser.add_argument("--balance", nargs="+", choices=("none", "column"), default=("none", "column"))
    parser.add_argument("--implementation", choices=_NAMES, default="auto", metavar="NAME")
    parser.add_argument("--rows", type=int, default=4, help="rows of a batch")
    parser.add_argument("--length", type=int, default=256, help="tokens of a row")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="none")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", default="", help="file to write the rows and the conditions to")
    arguments = parser.parse_args(argv)
    runs = [arguments]
    if arguments.preset is not None:
        rest = ["--repetitions", str(arguments.repetitions), "--json", arguments.json, "--preset", arguments.preset]
        runs = [parser.parse_args([*shlex.split(flags), *rest]) for flags in PRESETS[arguments.preset]]
    for run in runs:
        if not all(0 < density < 1 for density in run.density):
            parser.error("--density: must be in (0, 1); the dense twin is always there")
        if min(run.rows, run.length, run.repetitions, *(() if run.layers is None else (run.layers,))) < 1:
            parser.error("--rows, --length, --layers and --repetitions: must be at least 1")
    return runs


def _recipe(arguments: argparse.Namespace, size: str, block: int, density: float, balance: str) -> Recipe:
    return recipe(
        size,
        density,
        block,
        balance,
        rows=arguments.rows,
        length=arguments.length,
        compute_dtype=arguments.dtype,
        remat=arguments.remat,
        target=target_of(jax.devices()[0]),
        layers=arguments.layers,
        implementation=arguments.implementation,
    )


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
        times = interleaved({"rewire": lambda: rewire(self.state, plan, NO_SCORES)}, repetitions=2)
        return 1e3 * times["rewire"].median


def measure(arguments: argparse.Namespace, size: str, block: int) -> list[Row]:
    """The dense twin and all sparse variants of one size and block, interleaved."""
    target_BT = np.random.default_rng(0).integers(0, VOCABULARY, (arguments.rows, arguments.length), np.int32)
    places = [(1.0, "none"), *((d, b) for b in arguments.balance for d in arguments.density)]
    variants = {
        f"{density} {balance}": Variant(_recipe(arguments, size, block, density, balance), target_BT)
        for density, balance in places
    }
    times = interleaved({name: variant.step for name, variant in variants.items()}, arguments.repetitions)
    twin = times["1.0 none"]
    return [_row(variant, times[name], twin) for name, variant in variants.items()]


def _row(variant: Variant, mine: Times, twin: Times) -> Row:
    run, tokens = variant.run.run, int(variant.target_BT.size)
    return Row(
        size=run.model.size,
        layers=run.model.layers,
        block=run.topology.block[0],
        balance=run.topology.balance,
        density=run.topology.density,
        implementations=",".join(sorted(set(variant.run.implementations.values()))) or "dense",
        tokens=tokens,
        median_ms=1e3 * mine.median,
        fastest_ms=1e3 * min(mine.wall),
        spread=mine.spread,
        over_twin=mine.median / twin.median,
        fastest_over_twin=min(mine.wall) / min(twin.wall),
        processor_over_twin=min(mine.processor) / min(twin.processor),
        tokens_per_second=tokens / mine.median,
        state_bytes=nbytes(variant.state),
        temporary_bytes=int(variant.compiled.memory_analysis().temp_size_in_bytes),
        rewire_ms=variant.rewire_milliseconds(),
    )


def _cells(row: Row) -> list[object]:
    cells: list[object] = [row.size, row.layers, row.block, row.balance, f"{row.density:g}", row.implementations]
    cells += [row.tokens, f"{row.median_ms:.0f}", f"{row.spread:.2f}", f"{row.over_twin:.2f}"]
    cells += [f"{row.fastest_over_twin:.2f}", f"{row.processor_over_twin:.2f}", f"{row.tokens_per_second:.0f}"]
    return [*cells, f"{row.state_bytes / MIB:.0f}", f"{row.temporary_bytes / MIB:.0f}", f"{row.rewire_ms:.0f}"]


def _measured(runs: Sequence[argparse.Namespace]) -> Iterator[Row]:
    for arguments in runs:
        for size, block in itertools.product(arguments.size, arguments.block):
            yield from measure(arguments, size, block)


def main() -> None:
    """Print a Markdown table; write the JSON file if asked to."""
    runs = parse_arguments()
    columns = ("size", "layers", "block", "balance", "density", "block_matmul", "tokens", "median ms", "spread")
    columns += ("over twin", "fastest", "processor", "tokens/s", "state MiB", "temporaries MiB", "rewire ms")
    try:
        report(runs, columns, _measured(runs), _cells)
    except ConfigError as error:
        sys.exit(f"benchmarks.step: {error}")


if __name__ == "__main__":
    main()
