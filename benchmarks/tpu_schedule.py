"""Instruction bundles of the TPU kernels, counted in the compiler's own schedule: no TPU is needed.

    python -m benchmarks.tpu_schedule --chip v5e v5p v6e tpu7x

Compiles every product for every chip and counts, in the compiler's final schedule, the bundles a TensorCore issues
for a unit of work: one block of 128 x 128 against 512 tokens. Beside it, from the same compiler: the best of several
dense Pallas products of the same shape, and XLA's own dense dot. The last two columns divide by the faster of both.

What the number is: the issue slots of one line of R blocks, the kernel's branches and its step's own work included;
for the values' gradient also a column's share of turning the activations. What it is not: time. Waits for copies and
for the matrix units are not in it, so no count is taken as below ``floor``, the cycles that the units need for the
multiplications alone (peak FLOP/s over clock). A long line is one whose blocks are all in full products.
Needs libtpu, whose lock lets one process of a machine compile at a time.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.bundles import Bundle, dump_schedules, loops, read_schedule, ways
from benchmarks.dense_tpu import FORWARD_TILES, GRADIENT_TILES, dense_gradient, dense_product
from benchmarks.measuring import table_line, write_json
from sparsejax.hardware.chips import Chip, chip_named
from sparsejax.hardware.topologies import described_device, on_device
from sparsejax.kernels import tpu_tiles
from sparsejax.kernels.lines import Lines, StoredColumns
from sparsejax.kernels.pallas_tpu import CHIPS
from sparsejax.kernels.tpu_lines import line_product
from sparsejax.kernels.tpu_values import value_gradient
from sparsejax.topology.blocks import BlockGrid

PRODUCTS = ("forward", "input_gradient", "value_gradient")
# Sides of a block that fill the matrix unit of a chip.
PROPER_BLOCK = {"v4": 128, "v5e": 128, "v5p": 128, "v6e": 256, "tpu7x": 256}
# Clock of a TensorCore in GHz, which published peaks imply for 4 units of 128 or 256.
_CLOCK_GHZ = {"v4": 1.05, "v5e": 1.5, "v5p": 1.75, "v6e": 1.75, "tpu7x": 2.2}
_UNIT = 128 * 128 * 512


@dataclasses.dataclass(frozen=True)
class Row:
    """One product on one chip; counts are bundles a unit.

    Attributes:
      by_blocks: of a line with 1, 2, .. blocks.
      full: of the full products of a longer line.
      dense: of the best dense Pallas product; 0 if it was left out.
      xla: of XLA's dense dot; 0 if it was left out.
      floor: cycles a unit that the matrix units need.
    """

    chip: str
    block: int
    product: str
    tokens: int
    by_blocks: Mapping[int, float]
    full: float
    dense: float
    xla: float
    floor: float

    def over(self, reference: float, blocks: int) -> float:
        """A line of ``blocks`` blocks over a reference, neither taken as below the floor."""
        return max(self.by_blocks[blocks], self.floor) / max(reference, self.floor)


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is compiled: one weight of one chip's proper block and tokens."""

    chip: Chip
    grid: BlockGrid
    slots: int
    tokens: int

    @property
    def units(self) -> float:
        """Units of work of one block against one token."""
        (bk, bn) = self.grid.block
        return bk * bn / _UNIT

    @property
    def products_a_unit(self) -> int:
        """Operations that feed a matrix unit of the chip, all of whose width is used: 16 rows each."""
        return 512 * 128 * 128 // (16 * PROPER_BLOCK[self.chip.name] ** 2)

    def array(self, *shape: int, dtype: Any = jnp.bfloat16) -> Any:
        """A described array on the chip."""
        return on_device(jax.ShapeDtypeStruct(shape, dtype), described_device(self.chip))

    def numbers(self, count: int) -> Any:
        """A described list of int32."""
        return self.array(count, dtype=jnp.int32)


def floor(chip: Chip) -> float:
    """Cycles a unit that the matrix units of one TensorCore need at peak."""
    return 2 * _UNIT * tpu_tiles.CORES[chip.name] * _CLOCK_GHZ[chip.name] * 1e9 / chip.peak_flops


def schedules(function: Callable[..., Any], arguments: Any, folder: Path) -> dict[str, list[Bundle]]:
    """Compile and read what the compiler wrote: the schedule of every program that multiplies, by file name."""
    for old in folder.iterdir():
        old.unlink()
    jax.jit(function).lower(*arguments).compile()
    written = (path for path in sorted(folder.glob("*final_bundles.txt")) if "schedule-analysis" not in path.name)
    read = {path.name: read_schedule(path) for path in written}
    return {name: schedule for name, schedule in read.items() if any(bundle.products for bundle in schedule)}


def only(found: Mapping[str, list[Bundle]]) -> list[Bundle]:
    """The one schedule of a program with one kernel.

    Raises:
      RuntimeError: there is none or more than one.
    """
    if len(found) != 1:
        raise RuntimeError(f"expected the schedule of one kernel, found {sorted(found)}")
    return next(iter(found.values()))


def nested(schedule: list[Bundle], count: int) -> list[range]:
    """The loops of a kernel, longest first; a grid of one step has no loop, and its step is the whole program.

    Raises:
      RuntimeError: the kernel does not have ``count`` loops, so this file no longer describes it.
    """
    found = loops(schedule)
    found = [range(len(schedule)), *found] if len(found) == count - 1 else found
    if len(found) != count:
        raise RuntimeError(f"expected a kernel with {count} loops, found {found}")
    return found


def line_row(problem: Problem, product: str, folder: Path) -> Row:
    """``forward`` or ``input_gradient``: one loop over the lines of a step, in it one over full products."""
    grid, by_row = problem.grid, product == "input_gradient"
    tiles = tpu_tiles.line_tiles(problem.chip, grid, problem.slots, problem.tokens, jnp.bfloat16, by_row=by_row)

    def multiply(x: jax.Array, w: jax.Array, *lines: jax.Array) -> jax.Array:
        return line_product(x, w, Lines(*lines), tiles, by_row=by_row, name=product)

    width, lines = (grid.shape[1], grid.rows) if by_row else (grid.shape[0], grid.columns)
    arguments = (problem.array(problem.tokens, width), problem.array(problem.slots, *grid.block))
    lists = (problem.numbers(n) for n in (lines, lines, problem.slots, problem.slots))
    schedule = only(schedules(multiply, (*arguments, *lists), folder))
    step, line, full = nested(schedule, 3)
    share = (len(step) - len(line)) / tiles.lines
    return _row(problem, product, tiles.tokens, one_run(schedule, line), share, len(full) / tiles.unroll)


def gradient_row(problem: Problem, folder: Path) -> Row:
    """``value_gradient``: a step clears its sums once, turns its rows, and loops over the columns."""
    grid, tokens = problem.grid, problem.tokens
    tiles = tpu_tiles.value_tiles(problem.chip, grid, problem.slots, tokens, jnp.bfloat16)

    def gradient(x: jax.Array, gy: jax.Array, place: jax.Array, *columns: jax.Array) -> jax.Array:
        return value_gradient(x, gy, StoredColumns(*columns), place, grid.block, tiles, name="value_gradient")

    arguments = (problem.array(tokens, grid.shape[0]), problem.array(tokens, grid.shape[1]))
    lists = (problem.numbers(n) for n in (problem.slots, grid.columns, grid.columns, grid.columns))
    schedule = only(schedules(gradient, (*arguments, *lists), folder))
    step, column, *others = nested(schedule, 5)
    (full,) = (loop for loop in others if loop.start in column)
    clear, turn = sorted((loop for loop in others if loop.start not in column), key=lambda loop: loop.start)
    panels, passes = -(-tokens // tiles.tokens), -(-problem.slots // tiles.slots)
    around = len(step) - len(column) - len(turn) - len(clear)
    # What every step of every pass does beside its columns, shared among the columns of all passes.
    share = passes * (around + grid.rows * len(turn) + tiles.slots * len(clear) / panels) / grid.columns
    return _row(problem, "value_gradient", tiles.tokens, one_run(schedule, column), share, len(full) / tiles.unroll)


def one_run(schedule: list[Bundle], body: range) -> dict[int, int]:
    """Bundles of a loop body by the number of blocks it multiplies in one run; the smallest number is one block."""
    counts = {way.products: bundles for way, bundles in ways(schedule, body).items() if way.runs == 1 and way.products}
    block = math.gcd(*counts)
    return {products // block: bundles for products, bundles in sorted(counts.items())}


def _row(problem: Problem, product: str, tokens: int, counts: dict[int, int], share: float, full: float) -> Row:
    a_block = problem.units * tokens
    by_blocks = {blocks: (bundles + share) / (blocks * a_block) for blocks, bundles in counts.items()}
    block = problem.grid.block[0]
    return Row(problem.chip.name, block, product, tokens, by_blocks, full / a_block, 0.0, 0.0, floor(problem.chip))


def dense_count(problem: Problem, product: str, folder: Path) -> float:
    """Bundles a unit of the best dense Pallas product; work done once for several steps is shared among them."""
    (K, N), T, vmem = problem.grid.shape, problem.tokens, tpu_tiles.usable_vmem(problem.chip)
    x, gy, w = problem.array(T, K), problem.array(T, N), problem.array(K, N)
    counts = []
    extents = (K, N, T) if product == "value_gradient" else (T, N, K)
    tried = GRADIENT_TILES if product == "value_gradient" else FORWARD_TILES
    for tile in (t for t in tried if not any(extent % side for extent, side in zip(extents, t, strict=True))):
        if product == "value_gradient":
            multiply, operands, steps = dense_gradient, (x, gy), T // tile[2]
        else:
            # The input gradient beside a dense product with the same contraction as its lines have.
            multiply, operands, steps = dense_product, (x, w), K // tile[2]
        program = partial(multiply, tile=tile, vmem_bytes=vmem, name="dense")
        try:
            schedule = only(schedules(program, operands, folder))
        except jax.errors.JaxRuntimeError:
            continue  # the tile does not fit this chip
        found = ways(schedule, loops(schedule)[0])
        most = max(way.products for way in found)
        by_runs = sorted((way.runs, bundles) for way, bundles in found.items() if way.products == most)
        least, all_of_it = by_runs[0][1], by_runs[-1][1]
        counts.append((least + (all_of_it - least) / steps) / (math.prod(tile) / _UNIT))
    return min(counts)


def xla_count(problem: Problem, product: str, folder: Path) -> float:
    """Bundles a unit of XLA's own dense dot."""
    (K, N), T = problem.grid.shape, problem.tokens
    x, gy, w = problem.array(T, K), problem.array(T, N), problem.array(K, N)
    programs: dict[str, tuple[Callable[..., Any], Any]] = {
        "forward": (lambda x, w: x @ w, (x, w)),
        "input_gradient": (lambda gy, w: gy @ w.T, (gy, w)),
        "value_gradient": (lambda x, gy: jnp.dot(x.T, gy, preferred_element_type=jnp.float32), (x, gy)),
    }
    counts = []
    for schedule in schedules(*programs[product], folder).values():
        for loop in loops(schedule):
            products, bundles = max((way.products, bundles) for way, bundles in ways(schedule, loop).items())
            counts.append((products, bundles / max(1, products) * problem.products_a_unit))
    return max(counts)[1]


def measure(chip: Chip, folder: Path, arguments: argparse.Namespace) -> list[Row]:
    """The three products of one chip, beside the dense ones unless ``--alone``."""
    side = arguments.block or PROPER_BLOCK[chip.name]
    K, N = (width // side * side for width in arguments.shape)
    grid = BlockGrid((K, N), (side, side))
    problem = Problem(chip, grid, max(1, round(arguments.density * grid.cells)), arguments.tokens)
    rows = []
    for product in PRODUCTS:
        row = gradient_row(problem, folder) if product == "value_gradient" else line_row(problem, product, folder)
        if not arguments.alone:
            dense, xla = dense_count(problem, product, folder), xla_count(problem, product, folder)
            row = dataclasses.replace(row, dense=dense, xla=xla)
        rows.append(row)
    return rows


def cells(row: Row) -> list[str]:
    """One line of the table."""
    blocks = max(row.by_blocks)
    counts = [f"{row.by_blocks[b]:.0f}" for b in sorted(row.by_blocks)] + [f"{row.full:.0f}", f"{row.floor:.0f}"]
    if not row.dense:
        return [row.chip, str(row.block), row.product, str(row.tokens), *counts]
    best = min(row.dense, row.xla)
    over = [f"{row.over(row.dense, blocks):.2f}", f"{row.over(best, blocks):.2f}"]
    return [
        row.chip,
        str(row.block),
        row.product,
        str(row.tokens),
        *counts,
        f"{row.dense:.0f}",
        f"{row.xla:.0f}",
        *over,
    ]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; argparse exits with 2 on a bad flag."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", nargs="+", choices=CHIPS, default=CHIPS)
    parser.add_argument("--shape", type=int, nargs=2, default=(2048, 5632), metavar=("K", "N"))
    parser.add_argument("--block", type=int, default=0, help="side of a block; 0 is the one that suits the chip")
    parser.add_argument("--density", type=float, default=0.25)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--alone", action="store_true", help="leave out the dense products beside")
    parser.add_argument("--json", default="", help="file to write the rows and the conditions to")
    arguments = parser.parse_args(argv)
    if arguments.block % tpu_tiles.LANES:
        parser.error(f"--block: {arguments.block} is not a multiple of {tpu_tiles.LANES}")
    widest = arguments.block or max(PROPER_BLOCK[chip] for chip in arguments.chip)
    if min(arguments.shape) < 4 * widest:
        parser.error(f"--shape: both widths must hold 4 blocks of {widest}, for lines of 4")
    if not 0 < arguments.density <= 1:
        parser.error("--density: must be in (0, 1]")
    if arguments.tokens < 1:
        parser.error("--tokens: must be at least 1")
    return arguments


def main() -> None:
    """Print a Markdown table; write the JSON file if asked to."""
    arguments = parse_arguments()
    stated = vars(arguments) | {"jax": jax.__version__}
    print(" ".join(f"{name}={value}" for name, value in stated.items()))
    columns = ["chip", "block", "product", "panel", *("1", "2", "3", "4"), "more", "floor"]
    columns += [] if arguments.alone else ["dense", "XLA", "4 over dense", "4 over best"]
    print(table_line(columns))
    print(table_line(["---"] * len(columns)))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        dump_schedules(Path(name))
        for chip in arguments.chip:
            for row in measure(chip_named(chip), Path(name), arguments):
                rows.append(row)
                print(table_line(cells(row)), flush=True)
    write_json(arguments.json, stated, rows)


if __name__ == "__main__":
    main()
