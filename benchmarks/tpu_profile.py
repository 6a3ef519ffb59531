"""Which part of the train step costs what on a TPU, as its compiler expects; no TPU is needed.

    python -m benchmarks.tpu_profile --size 1b --chip v5p --density 1 0.25 --block 128 --implementation pallas_tpu

Compiles the whole train step (loss, gradients, clipping, sparse Adam) for one described chip with libtpu and sums the
compiler's own estimates of cycles over sparse or dense linears, attention, head and loss, optimizer, embedding, and the
rest (``benchmarks/hlo_cost.py``). Needs the ``tpu`` extra; one such process at a time.

These are estimates, good for shares and for sizes apart, not times. The compiler's model of an operation knows neither
waits for copies nor how operations overlap. Pallas kernels are charged their FLOPs and bytes at the rates that the
compiler expects of one large product and one large copy, which flatters a kernel that does not reach them; what
kernels issue is counted by ``benchmarks/tpu_schedule.py``.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from benchmarks.hlo_cost import PARTS, REST, Rates, cycles_by_part
from benchmarks.measuring import conditions, table_line, write_json
from benchmarks.model_runs import recipe
from sparsejax.hardware.chips import CHIPS, Chip, chip_named
from sparsejax.hardware.target import Target
from sparsejax.hardware.topologies import described_device, on_device
from sparsejax.models.sizes import SIZES
from sparsejax.training.recipe import Recipe
from sparsejax.training.steps import make_train_step

# Large enough that the compiler's estimate is that of its inner loop, small enough that operands are read once.
_PRODUCT_SIDE = 4096
_COPY_BYTES = 2**28

TPUS = tuple(chip.name for chip in CHIPS if chip.device_kinds[0].startswith("TPU"))


@dataclasses.dataclass(frozen=True)
class Row:
    """One train step; cycles of one device."""

    density: float
    linears: str
    attention: str
    cycles: float
    cycles_over_first: float
    share: dict[str, float]
    temporary_bytes: int


def parse_arguments() -> argparse.Namespace:
    """The command line; a bad flag exits with 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="1b", metavar="SIZE")
    parser.add_argument("--chip", choices=TPUS, default="v5p")
    parser.add_argument("--density", type=float, nargs="+", default=(1.0, 0.5, 0.25, 0.125))
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--balance", choices=("none", "column"), default="none")
    parser.add_argument("--implementation", choices=("auto", "pallas_tpu", "transient"), default="auto")
    parser.add_argument("--rows", type=int, default=8, help="rows of a batch")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="full")
    parser.add_argument("--layers", type=int, default=None, help="decoder layers; those of the size if not given")
    parser.add_argument("--json", default="", help="file to write the rows and the conditions to")
    arguments = parser.parse_args()
    if not all(0 < density <= 1 for density in arguments.density):
        parser.error("--density: must be in (0, 1]")
    return arguments


def compiler_rates(device: jax.Device) -> Rates:
    """What the compiler expects of one large bfloat16 product and of one large copy."""

    def cycles(program: Callable[[jax.Array], jax.Array], operand: jax.ShapeDtypeStruct) -> float:
        compiled = jax.jit(program).lower(on_device(operand, device)).compile()
        return math.fsum(cycles_by_part(compiled.as_text(), Rates(math.inf, math.inf)).values())

    product = cycles(lambda x: x @ x, jax.ShapeDtypeStruct((_PRODUCT_SIDE, _PRODUCT_SIDE), jnp.bfloat16))
    copy = cycles(lambda x: x + 1, jax.ShapeDtypeStruct((_COPY_BYTES // 4,), jnp.float32))
    return Rates(flops_per_cycle=2 * _PRODUCT_SIDE**3 / product, bytes_per_cycle=2 * _COPY_BYTES / copy)


def compiled_step(run: Recipe, device: jax.Device) -> jax.stages.Compiled:
    """The train step as a program for that device, from shapes only."""
    target_BT = jax.ShapeDtypeStruct((run.run.train.batch_size, run.run.data.sequence_length), jnp.int32)
    arguments = on_device((run.abstract, target_BT, jax.eval_shape(lambda: run.rates)), device)
    return jax.jit(make_train_step(run), donate_argnums=0).lower(*arguments).compile()


def profile(arguments: argparse.Namespace, chip: Chip) -> Iterator[Row]:
    """One row a density."""
    device = described_device(chip)
    rates = compiler_rates(device)
    first = None
    for density in arguments.density:
        run = recipe(
            arguments.size,
            density,
            arguments.block,
            arguments.balance,
            rows=arguments.rows,
            length=arguments.length,
            compute_dtype=arguments.dtype,
            remat=arguments.remat,
            target=Target("tpu", chip.name),
            layers=arguments.layers,
            implementation=arguments.implementation,
        )
        compiled = compiled_step(run, device)
        parts = cycles_by_part(compiled.as_text(), rates)
        cycles = sum(parts.values())
        first = cycles if first is None else first
        yield Row(
            density=density,
            linears=",".join(sorted(set(run.implementations.values()))) or "dense",
            attention=str(run.attention),
            cycles=cycles,
            cycles_over_first=cycles / first,
            share={part: part_cycles / cycles for part, part_cycles in parts.items()},
            temporary_bytes=int(compiled.memory_analysis().temp_size_in_bytes),
        )


def main() -> None:
    """Print a Markdown table; write the JSON file if asked to."""
    arguments = parse_arguments()
    stated = conditions(arguments)
    print(" ".join(f"{name}={value}" for name, value in stated.items()))
    columns = (
        "density",
        "linears run by",
        "attention run by",
        "Mcycles",
        "over first",
        *PARTS,
        REST,
        "temporaries MiB",
    )
    print(table_line(columns))
    print(table_line(["---"] * len(columns)))
    rows = []
    for row in profile(arguments, chip_named(arguments.chip)):
        rows.append(row)
        cells = [f"{row.density:g}", row.linears, row.attention, f"{row.cycles / 1e6:.1f}"]
        cells += [f"{row.cycles_over_first:.2f}", *(f"{share:.1%}" for share in row.share.values())]
        print(table_line([*cells, f"{row.temporary_bytes / 2**20:.0f}"]), flush=True)
    write_json(arguments.json, stated, rows)


if __name__ == "__main__":
    main()
