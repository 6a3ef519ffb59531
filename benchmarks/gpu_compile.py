"""Compiles the kernels for Hopper without a GPU and shows what the assembler made of them.

    make compile-gpu                                # installs the ``cuda`` extra first; needs no GPU
    python -m benchmarks.gpu_compile                # with a CUDA plugin of jax
    python -m benchmarks.gpu_compile --chip h100 --json compiled.json

For every block and dtype the three products and the block norms are compiled to PTX and by ptxas to machine code for
sm_90a, with the shapes of the gate projection of llama-1b. A row is one kernel: registers a thread at launch, bytes
spilled to local memory and tensor-core products (wgmma) in the code. The exit code is 1 if a kernel spills or is
missing.

This is an optional job: the plugin and the libraries it needs take more than 4 GB. A line about nvdisasm on stderr
means that no disassembler is here, which the table does not need. The job proves that the kernels compile and fit the
register file; it runs nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import os
import re
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks.measuring import table_line, write_json
from sparsejax.hardware.chips import Chip, chip_named
from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul
from sparsejax.kernels.gpu_tiles import MULTIPROCESSORS, SIDES
from sparsejax.kernels.pallas_gpu import CHIPS
from sparsejax.models.sizes import SIZES
from sparsejax.topology.blocks import BlockGrid, BlockSparse, abstract_index

KERNELS = ("block_columns", "block_rows", "block_values", "block_norms")
_DENSITY = 0.25
_TOKENS = 8192

# A device that is not here, as XLA wants it described: what all Hopper SXM cards share, and a chip's own figures.
_TARGET = """
platform_name: "CUDA"
device_description_str: "{kind}"
runtime_version {{ major: 12 minor: 9 }}
dnn_version_info {{ major: 9 minor: 8 }}
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: {multiprocessors}
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {shared_memory}
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
}}
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """What the assembler says of one kernel."""

    kernel: str
    block: tuple[int, int]
    dtype: str
    registers: int
    spilled_bytes: int
    products: int


def described_gpu(chip: Chip) -> jax.Device:
    """A device of that chip to compile for; it holds no arrays and runs nothing."""
    target = _TARGET.format(
        kind=chip.device_kinds[0],
        multiprocessors=MULTIPROCESSORS,
        shared_memory=chip.kernel_memory_bytes,
        bandwidth=int(chip.memory_bandwidth),
        memory=chip.memory_bytes,
    )
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name=chip.name, topology="1x1x1", target_config=target
    )
    device: jax.Device = topology.devices[0]
    return device


def compile_products(chip: Chip, device: jax.Device, block: tuple[int, int], dtype: str) -> None:
    """Compile Y, gX, gV and the block norms of the gate projection of llama-1b, rounded up to whole blocks."""
    size = SIZES["1b"]
    shape = tuple(-(-width // side) * side for width, side in zip((size.hidden, size.mlp), block, strict=True))
    grid = BlockGrid((shape[0], shape[1]), block)
    slots, name = round(grid.cells * _DENSITY), f"pallas_gpu@{chip.name}"

    def placed(tree: object) -> object:
        sharding = SingleDeviceSharding(device)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

    def loss(x_TK: jax.Array, weight: BlockSparse) -> jax.Array:
        y_TN = block_matmul(x_TK, weight, implementation=name)
        return jnp.sum(y_TN.astype(jnp.float32) ** 2)

    x_TK = jax.ShapeDtypeStruct((_TOKENS, grid.shape[0]), dtype)
    values = jax.ShapeDtypeStruct((slots, *block), jnp.float32)
    weight = BlockSparse(values, abstract_index(grid, slots), grid)
    gradients = jax.grad(lambda x, values, index: loss(x, BlockSparse(values, index, grid)), argnums=(0, 1))
    jax.jit(gradients).lower(placed(x_TK), placed(weight.values), placed(weight.index)).compile()

    def norms(x_TK: jax.Array, gy_TN: jax.Array) -> jax.Array:
        return IMPLEMENTATIONS[name].block_norms(x_TK, gy_TN, grid)

    jax.jit(norms).lower(placed(x_TK), placed(jax.ShapeDtypeStruct((_TOKENS, grid.shape[1]), dtype))).compile()


def read_reports(folder: Path, block: tuple[int, int], dtype: str) -> list[Row]:
    """One row for every ``<kernel>_<number>.ptxas`` that the compiler left beside the PTX of the same name."""
    rows = []
    for report in sorted(folder.glob("*.ptxas")):
        text, ptx = report.read_text(encoding="utf-8"), report.with_suffix(".ptx").read_text(encoding="utf-8")
        registers = [int(count) for count in re.findall(r"Used (\d+) registers", text)]
        spilled = [int(count) for count in re.findall(r"(\d+) bytes spill", text)]
        if not registers or not spilled:
            raise ValueError(f"{report.name}: no report of registers and spills in it")
        kernel = report.stem.rpartition("_")[0]
        rows.append(Row(kernel, block, dtype, max(registers), sum(spilled), ptx.count("wgmma.mma_async")))
    return rows


def compiled_rows(chip: Chip, blocks: list[tuple[int, int]], dtypes: list[str]) -> list[Row]:
    """All kernels of all blocks and dtypes."""
    device, rows = described_gpu(chip), []
    for block, dtype in itertools.product(blocks, dtypes):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MOSAIC_GPU_DUMP_TO"] = folder
            compile_products(chip, device, block, dtype)
            rows += read_reports(Path(folder), block, dtype)
    return rows


def main() -> int:
    """Compile, print the table, and say whether every kernel is there and none spills."""
    parser = argparse.ArgumentParser(description="Compile the kernels for Hopper without a GPU.")
    parser.add_argument("--chip", choices=CHIPS, default="h200")
    parser.add_argument("--json", default="", metavar="FILE", help="also write the rows there")
    arguments = parser.parse_args()
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        print("benchmarks.gpu_compile: needs a CUDA plugin of jax: pip install 'sparsejax[cuda]'", file=sys.stderr)
        return 2
    # Read when the first kernel compiles. What is kept: PTX, and what ptxas says.
    os.environ |= {"MOSAIC_GPU_DUMP_PTX": "1", "MOSAIC_GPU_DUMP_PTXAS": "1"}
    jax.config.update("jax_platforms", "cpu")
    blocks = list(itertools.product(SIDES, SIDES))
    rows = compiled_rows(chip_named(arguments.chip), blocks, ["bfloat16", "float16"])
    print(table_line(["kernel", "block", "dtype", "registers", "spilled bytes", "wgmma"]))
    print(table_line(["---"] * 6))
    for row in rows:
        print(table_line([row.kernel, "x".join(map(str, row.block)), row.dtype, *dataclasses.astuple(row)[3:]]))
    write_json(arguments.json, {"chip": arguments.chip, "jax": jax.__version__}, rows)
    missing = len(KERNELS) * len(blocks) * 2 - len(rows)
    if missing or any(row.spilled_bytes for row in rows):
        print(f"benchmarks.gpu_compile: {missing} kernels are missing, or one spills", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
