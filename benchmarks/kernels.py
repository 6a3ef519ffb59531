"""Time of one block-sparse product beside the dense product of the same shape, in one run.

    python -m benchmarks.kernels --preset cpu --json kernels.json
    python -m benchmarks.kernels --preset gpu --json kernels.json
    python -m benchmarks.kernels --layer 1b/mlp.gate 7b/attention.q --block 128 128 --density 0.25 --product both

Every repetition times the dense product and every implementation at every density once, in turn; a ratio divides
medians of the same run. "fastest" divides the shortest times, "processor" the least processor seconds: on a CPU that
other programs share these two say more than the median. Products: forward, dx and dv (one gradient each), both (the
forward and both gradients). Data and topologies are random with a fixed seed; weights have the activations' dtype.

Executed TFLOP/s counts what the implementation multiplies: active blocks for xla, bcoo, batched and the kernels, all of
the weight for transient and reference. "floor ms" is the bytes of operands and results over the bandwidth of the
device's memory (hardware/chips.py); a device that is not listed there has none. On an accelerator many calls run inside
one program (--calls), on rotating operands larger than its caches. The table goes to standard output, rows to --json.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from benchmarks.measuring import Times, interleaved, report
from benchmarks.products import PRODUCTS, Operands, Timed, compiled, draw, layer_shape, product_of, with_blocks
from sparsejax.config import ConfigError
from sparsejax.hardware.chips import chip_for
from sparsejax.hardware.target import target_of
from sparsejax.kernels.api import IMPLEMENTATIONS
from sparsejax.kernels.auto import KERNELS, resolve
from sparsejax.topology.blocks import BlockGrid

_EXECUTES_DENSE = ("dense", "transient", "reference")
_PORTABLE = tuple(name for name in IMPLEMENTATIONS if "@" not in name)
_IMPLEMENTATIONS = {"cpu": ("xla", "transient"), "gpu": ("pallas_gpu", "transient"), "tpu": ("pallas_tpu", "transient")}
_CALLS = {"cpu": 1, "gpu": 100, "tpu": 100}

# The flags of the runs that make up one table: "cpu" and "gpu" of docs/PERFORMANCE.md, "auto" and "few" (tokens) of
# kernels/auto.py.
PRESETS = {
    "cpu": (
        "--balance column --product forward dx dv both --implementation xla",
        "--balance none --product both --implementation xla",
        "--layer 60m/attention.q 130m/mlp.gate 350m/mlp.gate 1b/mlp.down --tokens 1024 --balance column --product both"
        " --density 0.25 --implementation xla transient",
    ),
    "gpu": (
        "--shape 2048 5504 --tokens 8192 --dtype bfloat16",
        "--layer 1b/attention.q 1b/mlp.down 7b/attention.q 7b/mlp.gate 7b/mlp.down --tokens 8192 --dtype bfloat16"
        " --product forward both",
        "--layer 60m/mlp.gate 130m/mlp.gate 350m/mlp.gate --tokens 8192 --dtype bfloat16 --density 0.25 --product both",
    ),
    "auto": tuple(
        f"--shape {side} {side} --tokens {tokens} --block {block} {block} --balance {balance} --product both"
        " --density 0.5 0.25 0.125 --implementation xla"
        for side, tokens in ((2048, 2048), (512, 1024))
        for block in (16, 32, 64, 128)
        for balance in ("none", "column")
    ),
    "few": tuple(
        f"--shape {side} {side} --tokens {tokens} --block {block} {block} --product forward"
        " --density 0.5 0.25 0.125 --implementation batched xla"
        for side in (2048, 512)
        for tokens in (1, 8, 32)
        for block in (16, 32, 64, 128)
    ),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: one implementation of one product at one density; density 1 is the dense product."""

    layer: str
    block: tuple[int, int]
    balance: str
    tokens: int
    dtype: str
    product: str
    density: float
    implementation: str
    median_ms: float
    fastest_ms: float
    spread: float  # (75th - 25th percentile) / median
    over_dense: float
    fastest_over_dense: float
    processor_over_dense: float
    executed_tflops: float
    floor_ms: float | None
    temporary_bytes: int


def parse_arguments(argv: Sequence[str] | None = None) -> list[argparse.Namespace]:
    """The runs that the command line asks for, those of a preset or one; argparse exits with 2 on a bad flag."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=tuple(PRESETS), help="the runs of one of our tables")
    parser.add_argument("--layer", nargs="+", default=(), metavar="SIZE/KIND", help="for example 1b/mlp.gate")
    parser.add_argument("--shape", type=int, nargs=2, default=(2048, 2048), metavar=("K", "N"))
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--block", type=int, nargs=2, default=(128, 128), metavar=("BK", "BN"))
    parser.add_argument("--density", type=float, nargs="+", default=(0.5, 0.25, 0.125, 0.0625))
    parser.add_argument("--balance", choices=("none", "column"), default="none")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--implementation", nargs="+", choices=(*_PORTABLE, *KERNELS), metavar="NAME")
    parser.add_argument("--product", nargs="+", choices=PRODUCTS, default=PRODUCTS)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--calls", type=int, help="calls inside one program; by the device if left out")
    parser.add_argument("--json", default="", help="file to write the rows and the conditions to")
    arguments = parser.parse_args(argv)
    if arguments.preset is None:
        return [_checked(parser, arguments)]
    rest = ["--repetitions", str(arguments.repetitions), "--json", arguments.json, "--preset", arguments.preset]
    runs = [parser.parse_args([*shlex.split(flags), *rest]) for flags in PRESETS[arguments.preset]]
    return [_checked(parser, run) for run in runs]


def _checked(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments with what the device decides filled in."""
    target = target_of(jax.devices()[0])
    arguments.implementation = arguments.implementation or _IMPLEMENTATIONS[target.platform]
    arguments.calls = arguments.calls if arguments.calls is not None else _CALLS[target.platform]
    if not all(0 < density <= 1 for density in arguments.density):
        parser.error("--density: must be in (0, 1]")
    if min(arguments.repetitions, arguments.tokens, arguments.calls) < 1:
        parser.error("--repetitions, --tokens and --calls: must be at least 1")
    try:
        for _, grid in _grids(arguments):
            for density in arguments.density:
                for name in arguments.implementation:
                    resolve(name, target=target, grid=grid, density=density, dtype=arguments.dtype)
    except (ConfigError, ValueError) as error:
        parser.error(str(error))
    return arguments


def _grids(arguments: argparse.Namespace) -> list[tuple[str, BlockGrid]]:
    block = tuple(arguments.block)
    shapes = {layer: layer_shape(layer, block) for layer in arguments.layer}
    if not shapes:
        shapes = {"{}x{}".format(*arguments.shape): tuple(arguments.shape)}
    return [(name, BlockGrid(shape, block, balance=arguments.balance)) for name, shape in shapes.items()]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One thing that is timed: an implementation at a density, with its operands."""

    implementation: str
    density: float
    operands: Operands
    timed: Timed


def measure(arguments: argparse.Namespace, layer: str, grid: BlockGrid, product: str) -> list[Row]:
    """The dense product and every implementation at every density, interleaved."""
    device = jax.devices()[0]
    dense = draw(grid, arguments.tokens, arguments.dtype, seed=1)
    entries = [Entry("dense", 1.0, dense, compiled(product_of("dense", product), dense, arguments.calls))]
    for density in arguments.density:
        operands = with_blocks(dense, grid, density, seed=0)
        realised = operands.values.size / (grid.shape[0] * grid.shape[1])
        for name in arguments.implementation:
            exact = resolve(name, target=target_of(device), grid=grid, density=realised, dtype=arguments.dtype)
            timed = compiled(product_of(exact, product), operands, arguments.calls)
            entries.append(Entry(exact, realised, operands, timed))
    runs = {str(i): entry.timed.run for i, entry in enumerate(entries)}
    whole = interleaved(runs, arguments.repetitions).values()
    times = [mine.over(entry.timed.calls) for entry, mine in zip(entries, whole, strict=True)]
    return [
        _row(arguments, layer, grid, product, entry, mine, times[0]) for entry, mine in zip(entries, times, strict=True)
    ]


def _row(
    arguments: argparse.Namespace, layer: str, grid: BlockGrid, product: str, entry: Entry, mine: Times, dense: Times
) -> Row:
    chip = chip_for(jax.devices()[0].device_kind)
    executed = 1.0 if entry.implementation in _EXECUTES_DENSE else entry.density
    flops = 2 * arguments.tokens * grid.shape[0] * grid.shape[1] * (3 if product == "both" else 1) * executed
    return Row(
        layer=layer,
        block=grid.block,
        balance=grid.balance,
        tokens=arguments.tokens,
        dtype=jnp.dtype(arguments.dtype).name,
        product=product,
        density=entry.density,
        implementation=entry.implementation,
        median_ms=1e3 * mine.median,
        fastest_ms=1e3 * min(mine.wall),
        spread=mine.spread,
        over_dense=mine.median / dense.median,
        fastest_over_dense=min(mine.wall) / min(dense.wall),
        processor_over_dense=min(mine.processor) / min(dense.processor),
        executed_tflops=flops / mine.median / 1e12,
        floor_ms=1e3 * entry.operands.bytes_moved(product) / chip.memory_bandwidth if chip else None,
        temporary_bytes=entry.timed.temporary_bytes,
    )


def _cells(row: Row) -> list[str]:
    cells = [row.layer, "x".join(map(str, row.block)), row.balance, row.product, f"{row.density:.4f}"]
    cells += [row.implementation, f"{row.median_ms:.3g}", f"{row.spread:.2f}", f"{row.over_dense:.2f}"]
    cells += [f"{row.fastest_over_dense:.2f}", f"{row.processor_over_dense:.2f}", f"{row.executed_tflops:.3g}"]
    return [*cells, f"{row.floor_ms:.3g}" if row.floor_ms else "-", f"{row.temporary_bytes / 1e6:.1f}"]


def _measured(runs: Sequence[argparse.Namespace]) -> Iterator[Row]:
    for arguments in runs:
        for layer, grid in _grids(arguments):
            for product in arguments.product:
                yield from measure(arguments, layer, grid, product)


def main() -> None:
    """Print a Markdown table; write the JSON file if asked to."""
    runs = parse_arguments()
    columns = ("layer", "block", "balance", "product", "density", "implementation", "median ms", "spread", "over dense")
    columns += ("fastest", "processor", "executed TFLOP/s", "floor ms", "temporaries MB")
    report(runs, columns, _measured(runs), _cells)


if __name__ == "__main__":
    main()
