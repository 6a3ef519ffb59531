"""Time and temporary bytes of ``block_matmul`` beside the dense product of the same shape, in one run.

    python -m benchmarks.block_matmul --shape 2048 2048 --tokens 2048 --block 128 128 --density 0.5 0.25 0.125

Every repetition times the dense product and every implementation once, in turn; a ratio divides medians of the same
run. "fastest" divides the shortest times, "processor" the least processor seconds: where other programs share the
machine these two say more than the median. Blocks are drawn at random with a fixed seed.
Executed GFLOP/s counts what the implementation multiplies: active blocks for xla and bcoo, all of the weight for
transient and reference. The table goes to standard output, one JSON object to --json.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring import conditions, interleaved, table_line, write_json
from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul, unsupported
from sparsejax.topology.blocks import BlockGrid, BlockSparse, index_from_positions

_EXECUTES_DENSE = ("dense", "transient", "reference")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: one implementation of one product at one density."""

    density: float
    implementation: str
    product: str
    median_ms: float
    fastest_ms: float
    spread: float  # (75th - 25th percentile) / median
    over_dense: float
    fastest_over_dense: float
    processor_over_dense: float
    executed_gflops: float
    temporary_bytes: int


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; argparse exits with 2 on a bad flag."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=2, default=(2048, 2048), metavar=("K", "N"))
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--block", type=int, nargs=2, default=(128, 128), metavar=("BK", "BN"))
    parser.add_argument("--density", type=float, nargs="+", default=(0.5, 0.25, 0.125, 0.0625))
    parser.add_argument("--balance", choices=("none", "column"), default="none")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--implementation", nargs="+", choices=tuple(IMPLEMENTATIONS), default=("xla", "transient"), metavar="NAME"
    )
    parser.add_argument("--product", nargs="+", choices=("forward", "both"), default=("forward", "both"))
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--json", default="", help="file to write the rows and the conditions to")
    arguments = parser.parse_args(argv)
    try:
        grid = BlockGrid(tuple(arguments.shape), tuple(arguments.block), balance=arguments.balance)
    except ValueError as error:
        parser.error(str(error))
    for name in arguments.implementation:
        reason = unsupported(name, grid, arguments.dtype)
        if reason:
            parser.error(f"{name} does not support block {grid.block}: {reason}")
    if not all(0 < density <= 1 for density in arguments.density):
        parser.error("--density: must be in (0, 1]")
    if arguments.repetitions < 1 or arguments.tokens < 1:
        parser.error("--repetitions and --tokens: must be at least 1")
    return arguments


def random_weight(grid: BlockGrid, density: float, seed: int) -> BlockSparse:
    """A weight with the block count nearest to the density, at places drawn at random."""
    rng, count = np.random.default_rng(seed), max(1, round(density * grid.cells))
    if grid.balance == "column":
        parts = [
            column * grid.rows + np.sort(rng.permutation(grid.rows)[:blocks])
            for column, blocks in enumerate(grid.column_counts(count))
        ]
        position = np.concatenate(parts)
    else:
        position = np.sort(rng.permutation(grid.cells)[:count])
    index = index_from_positions(jnp.asarray(position)[None], grid)
    values = rng.standard_normal((count, *grid.block), np.float32)
    return BlockSparse(jnp.asarray(values), index, grid)


def products(name: str, product: str) -> Callable[..., Any]:
    """The timed function of (x, w, gy): the product, or the product and both gradients."""

    def multiply(x: jax.Array, w: Any) -> jax.Array:
        if name == "dense":
            y: jax.Array = jnp.dot(x, w.astype(x.dtype))
            return y
        return block_matmul(x, w, implementation=name)

    def both(x: jax.Array, w: Any, gy: jax.Array) -> Any:
        if name == "dense":
            y, pull = jax.vjp(multiply, x, w)
        else:
            y, pull = jax.vjp(lambda x, v: multiply(x, dataclasses.replace(w, values=v)), x, w.values)
        return y, pull(gy)

    return both if product == "both" else lambda x, w, gy: multiply(x, w)


def rows_of(arguments: argparse.Namespace, density: float, product: str) -> list[Row]:
    """Measure every implementation at one density."""
    grid = BlockGrid(tuple(arguments.shape), tuple(arguments.block), balance=arguments.balance)
    (K, N), tokens = grid.shape, arguments.tokens
    weight = random_weight(grid, density, seed=0)
    rng, dtype = np.random.default_rng(1), jnp.dtype(arguments.dtype)
    x, gy = (jnp.asarray(rng.standard_normal((tokens, width), np.float32), dtype) for width in (K, N))
    dense = jnp.asarray(rng.standard_normal((K, N), np.float32))
    programs = {}
    for name in ("dense", *arguments.implementation):
        operands = (x, dense if name == "dense" else weight, gy)
        programs[name] = (jax.jit(products(name, product)).lower(*operands).compile(), operands)
    runs = {name: partial(compiled, *operands) for name, (compiled, operands) in programs.items()}
    times = interleaved(runs, arguments.repetitions)
    dense_times = times["dense"]
    realised = weight.values.shape[0] / grid.cells
    flops = 2 * tokens * K * N * (3 if product == "both" else 1)
    return [
        Row(
            density=realised,
            implementation=name,
            product=product,
            median_ms=1e3 * mine.median,
            fastest_ms=1e3 * min(mine.wall),
            spread=mine.spread,
            over_dense=mine.median / dense_times.median,
            fastest_over_dense=min(mine.wall) / min(dense_times.wall),
            processor_over_dense=min(mine.processor) / min(dense_times.processor),
            executed_gflops=flops * (1.0 if name in _EXECUTES_DENSE else realised) / mine.median / 1e9,
            temporary_bytes=int(programs[name][0].memory_analysis().temp_size_in_bytes),
        )
        for name, mine in times.items()
    ]


def main() -> None:
    """Print a Markdown table; write the JSON file if asked to."""
    arguments = parse_arguments()
    stated = conditions(arguments)
    print(" ".join(f"{name}={value}" for name, value in stated.items()))
    columns = ("density", "implementation", "product", "median ms", "spread", "over dense", "fastest", "processor")
    print(table_line((*columns, "executed GFLOP/s", "temporaries MB")))
    print(table_line(["---"] * (len(columns) + 2)))
    rows: list[Row] = []
    for product in arguments.product:
        for density in arguments.density:
            for row in rows_of(arguments, density, product):
                rows.append(row)
                cells = [f"{row.density:.4f}", row.implementation, row.product, f"{row.median_ms:.1f}"]
                cells += [f"{row.spread:.2f}", f"{row.over_dense:.2f}", f"{row.fastest_over_dense:.2f}"]
                cells += [f"{row.processor_over_dense:.2f}", f"{row.executed_gflops:.1f}"]
                print(table_line([*cells, f"{row.temporary_bytes / 1e6:.1f}"]), flush=True)
    write_json(arguments.json, stated, rows)


if __name__ == "__main__":
    main()
