"""Time and temporary bytes of ``block_matmul`` beside the dense product of the same shape, in one run.

    python benchmarks/block_matmul.py --shape 2048 2048 --tokens 2048 --block 128 128 --density 0.5 0.25 0.125

Every repetition times the dense product and every implementation once, in turn, so that a change of machine load
meets them all; a ratio divides medians of the same run. Blocks are drawn at random with a fixed seed.
Executed GFLOP/s counts what the implementation multiplies: active blocks for xla and bcoo, all of the weight for
transient and reference. The table goes to standard output, one JSON object to --json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
        if unsupported(name, grid):
            parser.error(f"{name} does not support block {grid.block}: {unsupported(name, grid)}")
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


def measure(programs: dict[str, tuple[Any, tuple[Any, ...]]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of every compiled program, ``repetitions`` times, interleaved, after one warm-up each."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for compiled, operands in programs.values():
        jax.block_until_ready(compiled(*operands))
    for _ in range(repetitions):
        for name, (compiled, operands) in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(compiled(*operands))
            seconds[name].append(time.perf_counter() - start)
    return seconds


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
    seconds = measure(programs, arguments.repetitions)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    realised = weight.values.shape[0] / grid.cells
    flops = 2 * tokens * K * N * (3 if product == "both" else 1)
    rows = []
    for name, times in seconds.items():
        executed = flops * (1.0 if name in _EXECUTES_DENSE else realised)
        low, high = np.percentile(times, [25, 75])
        memory: Any = programs[name][0].memory_analysis()
        rows.append(
            Row(
                density=realised,
                implementation=name,
                product=product,
                median_ms=1e3 * median[name],
                fastest_ms=1e3 * min(times),
                spread=float(high - low) / median[name],
                over_dense=median[name] / median["dense"],
                fastest_over_dense=min(times) / min(seconds["dense"]),
                executed_gflops=executed / median[name] / 1e9,
                temporary_bytes=int(memory.temp_size_in_bytes),
            )
        )
    return rows


def main() -> None:
    """Print the table; write the JSON file if asked to."""
    arguments = parse_arguments()
    conditions = vars(arguments) | {
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "machine": f"{platform.machine()} {platform.system()}",
    }
    print(" ".join(f"{name}={value}" for name, value in conditions.items()))
    print("density  implementation  product  median ms  spread  /dense  fastest/dense  GFLOP/s   temp MB")
    rows = []
    for product in arguments.product:
        for density in arguments.density:
            for row in rows_of(arguments, density, product):
                rows.append(row)
                print(
                    f"{row.density:7.4f}  {row.implementation:<14}  {row.product:<7}  {row.median_ms:9.2f}  "
                    f"{row.spread:6.2f}  {row.over_dense:6.2f}  {row.fastest_over_dense:13.2f}  "
                    f"{row.executed_gflops:7.1f}  {row.temporary_bytes / 1e6:8.1f}",
                    flush=True,
                )
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"conditions": conditions, "rows": [dataclasses.asdict(row) for row in rows]}, file, indent=1)


if __name__ == "__main__":
    main()
