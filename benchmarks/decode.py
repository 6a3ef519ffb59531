"""Time of one decoding step, sparse beside dense, in one run: a stack of linears, and a whole model.

    python -m benchmarks.decode --preset cpu --json decode.json
    python -m benchmarks.decode --width 2048 --linears 8 --block 64 128 --density 0.25 --tokens 1 8
    python -m benchmarks.decode --model 130m --block 128 --density 0.25 --context 512 --rows 1

With few tokens a product is the reading of its weight, so what counts is how many bytes it reads. The stack feeds each
square linear's output, normalised, to the next; every linear has weights of its own. The model is the step of
``inference.engine`` with a full cache: embedding, head and attention are dense in both, so its ratio is larger, and is
reported apart. Every repetition times the dense program and every sparse one in turn, some steps of each: text is
written by one step after another of one program, so a step finds in the caches what the step before left there. A
ratio divides medians of the same run. "fastest" divides the shortest times, "processor" the least processor seconds: on
a CPU that other programs share these two say more than the median.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring import Times, interleaved, report
from benchmarks.model_runs import recipe
from benchmarks.products import random_weight
from sparsejax.config import ConfigError
from sparsejax.hardware.target import target_of
from sparsejax.inference.engine import Engine
from sparsejax.inference.sampling import GREEDY
from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul
from sparsejax.kernels.auto import KERNELS, resolve
from sparsejax.models.layers import dense_product
from sparsejax.models.sizes import SIZES
from sparsejax.topology.blocks import BlockGrid, BlockSparse
from sparsejax.training.programs import init_state

_NAMES = ("auto", *(name for name in IMPLEMENTATIONS if "@" not in name), *KERNELS)

# What docs/PERFORMANCE.md shows.
PRESETS = {
    "cpu": (
        "--block 64 128 --density 0.5 0.25 0.125 --tokens 1 8",
        "--model 130m --block 128 --density 0.25 --rows 1 --context 512",
        "--model 350m --block 128 --density 0.25 --rows 1 --context 512",
    )
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One program; times are of one step, in milliseconds. Density 1 is the dense program."""

    what: str
    block: int
    density: float
    implementations: str
    tokens: int
    median_ms: float
    fastest_ms: float
    spread: float  # (75th - 25th percentile) / median
    over_dense: float
    fastest_over_dense: float
    processor_over_dense: float
    weight_bytes: int


@dataclasses.dataclass(frozen=True)
class Entry:
    """One program that is timed: what a step computes, and what it reads."""

    density: float
    implementations: str
    step: Callable[[], Any]
    weight_bytes: int


def parse_arguments(argv: Sequence[str] | None = None) -> list[argparse.Namespace]:
    """The runs that the command line asks for, those of a preset or one; argparse exits with 2 on a bad flag."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=tuple(PRESETS), help="the runs of one of our tables")
    parser.add_argument("--width", type=int, default=2048, help="of every linear of the stack")
    parser.add_argument("--linears", type=int, default=8, help="in the stack")
    parser.add_argument("--tokens", type=int, nargs="+", default=(1,), help="of the stack, at a time")
    parser.add_argument("--model", choices=tuple(SIZES), metavar="SIZE", help="a whole model instead of the stack")
    parser.add_argument("--layers", type=int, help="of the model, instead of the published number")
    parser.add_argument("--rows", type=int, default=1, help="texts that the model continues at a time")
    parser.add_argument("--context", type=int, default=512, help="tokens that the cache of the model holds")
    parser.add_argument("--block", type=int, nargs="+", default=(64, 128))
    parser.add_argument("--density", type=float, nargs="+", default=(0.25,))
    parser.add_argument("--implementation", choices=_NAMES, default="auto", metavar="NAME")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=8, help="one after another, of each program in its turn")
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--json", default="", help="file to write the rows and the conditions to")
    arguments = parser.parse_args(argv)
    runs = [arguments]
    if arguments.preset is not None:
        shared = {name: getattr(arguments, name) for name in ("steps", "repetitions", "json", "preset")}
        rest = [part for name, value in shared.items() for part in (f"--{name}", str(value))]
        runs = [parser.parse_args([*shlex.split(flags), *rest]) for flags in PRESETS[arguments.preset]]
    for run in runs:
        if not all(0 < density < 1 for density in run.density):
            parser.error("--density: must be in (0, 1); the dense program is always there")
        counts = (run.width, run.linears, *run.tokens, run.rows, run.steps, run.repetitions, run.layers or 1)
        if min(counts) < 1 or run.context < 2:
            parser.error(
                "--width, --linears, --tokens, --rows, --layers, --steps, --repetitions: at least 1; --context: 2"
            )
        if run.model is None and any(run.width % block for block in run.block):
            parser.error(f"--block: must divide --width={run.width}")
    return runs


def _normalised(y_TN: jax.Array) -> jax.Array:
    """Outputs of the size of inputs: unbounded ones would end as infinities, which are multiplied at another speed."""
    return y_TN * jax.lax.rsqrt(jnp.mean(jnp.square(y_TN.astype(jnp.float32))) + 1e-6).astype(y_TN.dtype)


def stack_entries(arguments: argparse.Namespace, block: int, tokens: int) -> list[Entry]:
    """The stack of linears, dense and at every density."""
    rng, width, dtype = np.random.default_rng(0), arguments.width, arguments.dtype
    x_TK = jnp.asarray(rng.standard_normal((tokens, width), np.float32), dtype)
    count, grid = range(arguments.linears), BlockGrid((width, width), (block, block))
    kernels = [jnp.asarray(rng.standard_normal((width, width), np.float32), dtype) for _ in count]
    entries = [_stack(x_TK, kernels, "dense", 1.0)]
    for density in arguments.density:
        weights = [random_weight(grid, density, seed) for seed in count]
        weights = [dataclasses.replace(weight, values=weight.values.astype(dtype)) for weight in weights]
        realised = weights[0].values.size / width**2
        target = target_of(jax.devices()[0])
        name = resolve(arguments.implementation, target=target, grid=grid, density=realised, dtype=dtype, tokens=tokens)
        entries.append(_stack(x_TK, weights, name, realised))
    return entries


def _stack(x_TK: jax.Array, weights: Sequence[Any], name: str, density: float) -> Entry:
    def multiply(x: jax.Array, weight: Any) -> jax.Array:
        if isinstance(weight, BlockSparse):
            return block_matmul(x, weight, implementation=name)
        return dense_product(x, weight)

    def run(x: jax.Array, weights: Sequence[Any]) -> jax.Array:
        for weight in weights:
            x = _normalised(multiply(x, weight))
        return x

    program = jax.jit(run).lower(x_TK, weights).compile()
    held = sum(int(leaf.nbytes) for leaf in jax.tree.leaves(weights))
    return Entry(density, name, lambda: program(x_TK, weights), held)


class ModelStep:
    """The step of an engine on a cache that is full but for the token of the step."""

    def __init__(self, arguments: argparse.Namespace, block: int, density: float) -> None:
        """Make the model, read random prompts, compile the step."""
        target = target_of(jax.devices()[0])
        made = recipe(
            arguments.model,
            density,
            block,
            "none",
            rows=1,
            length=arguments.context,
            compute_dtype=arguments.dtype,
            remat="none",
            target=target,
            layers=arguments.layers,
        )
        state = init_state(made)
        self.engine = Engine(
            made.run.model,
            made.weights,
            state.params,
            state.topology,
            devices=jax.devices()[:1],
            implementation=arguments.implementation,
        )
        rows, read = arguments.rows, arguments.context - 1
        tokens_BT = np.random.default_rng(0).integers(0, made.vocab_size, (rows, read), np.int32)
        lengths_B, self.seeds_B = np.full(rows, read, np.int32), np.zeros(rows, np.uint32)
        self.token_B, self.cache = self.engine.prefill(tokens_BT, lengths_B, self.seeds_B, 0, arguments.context, GREEDY)

    def step(self) -> jax.Array:
        """Read a token, choose the next; the cache stays as full as it was."""
        lengths_B = jnp.array(self.cache.lengths_B)
        token_B, cache = self.engine.step(self.cache, self.token_B, self.seeds_B, 1, GREEDY)
        self.cache = dataclasses.replace(cache, lengths_B=lengths_B)
        return token_B

    def entry(self, density: float) -> Entry:
        """What is timed."""
        names = self.engine.implementations(self.token_B.shape[0])
        held = sum(int(leaf.nbytes) for leaf in jax.tree.leaves(self.engine.trees))
        return Entry(density, ",".join(sorted(set(names.values()))) or "dense", self.step, held)


def measure(arguments: argparse.Namespace, block: int, tokens: int) -> list[Row]:
    """The dense program and all sparse ones, interleaved."""
    if arguments.model is None:
        what, entries = f"{arguments.linears} x {arguments.width}", stack_entries(arguments, block, tokens)
    else:
        what = arguments.model
        densities = (1.0, *arguments.density)
        entries = [ModelStep(arguments, block, density).entry(density) for density in densities]
    turns = {str(i): partial(_steps, entry.step, arguments.steps) for i, entry in enumerate(entries)}
    times = [mine.over(arguments.steps) for mine in interleaved(turns, arguments.repetitions).values()]
    return [_row(what, block, tokens, entry, mine, times[0]) for entry, mine in zip(entries, times, strict=True)]


def _steps(step: Callable[[], Any], count: int) -> None:
    """So many steps, each waited for: its token is shown before the next is read."""
    for _ in range(count):
        jax.block_until_ready(step())


def _row(what: str, block: int, tokens: int, entry: Entry, mine: Times, dense: Times) -> Row:
    return Row(
        what=what,
        block=block,
        density=entry.density,
        implementations=entry.implementations,
        tokens=tokens,
        median_ms=1e3 * mine.median,
        fastest_ms=1e3 * min(mine.wall),
        spread=mine.spread,
        over_dense=mine.median / dense.median,
        fastest_over_dense=min(mine.wall) / min(dense.wall),
        processor_over_dense=min(mine.processor) / min(dense.processor),
        weight_bytes=entry.weight_bytes,
    )


def _cells(row: Row) -> list[object]:
    cells: list[object] = [row.what, row.block, f"{row.density:g}", row.implementations, row.tokens]
    cells += [f"{row.median_ms:.2f}", f"{row.spread:.2f}", f"{row.over_dense:.2f}", f"{row.fastest_over_dense:.2f}"]
    return [*cells, f"{row.processor_over_dense:.2f}", f"{row.weight_bytes / 2**20:.0f}"]


def _measured(runs: Sequence[argparse.Namespace]) -> Iterator[Row]:
    for arguments in runs:
        for block in arguments.block:
            for tokens in arguments.tokens if arguments.model is None else (arguments.rows,):
                yield from measure(arguments, block, tokens)


def main() -> None:
    """Print a Markdown table; write the JSON file if asked to."""
    runs = parse_arguments()
    columns = ("what", "block", "density", "block_matmul", "tokens", "median ms", "spread", "over dense", "fastest")
    try:
        report(runs, (*columns, "processor", "weights MiB"), _measured(runs), _cells)
    except ConfigError as error:
        sys.exit(f"benchmarks.decode: {error}")


if __name__ == "__main__":
    main()
