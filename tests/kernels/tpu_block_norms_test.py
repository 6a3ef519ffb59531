"""Block sums on TPU: numbers on a simulated one, programs by the compiler of each real one."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from sparsejax.hardware.chips import chip_named
from sparsejax.hardware.topologies import described_device, on_device
from sparsejax.kernels import pallas_tpu
from sparsejax.kernels.tpu_block_norms import block_norms, norm_tiles
from sparsejax.kernels.tpu_tiles import usable_vmem
from sparsejax.topology.blocks import BlockGrid
from tests.kernels.block_norms_test import norms_float64
from tests.kernels.contract_test import draw

V5E = chip_named("v5e")


@pytest.mark.parametrize(
    ("grid", "tokens", "dtype"),
    [
        (BlockGrid((384, 256), (128, 128)), 7, "float32"),  # one step with rows past the last token
        (BlockGrid((256, 128), (128, 128)), 520, "bfloat16"),  # two steps
        (BlockGrid((1152, 128), (128, 128)), 8, "float32"),  # two tiles of five rows for nine rows
        (BlockGrid((256, 512), (128, 256)), 8, "float32"),
    ],
    ids=["ragged", "steps", "edge", "rectangular"],
)
def test_numbers_on_a_simulated_tpu(grid, tokens, dtype):
    x, gy = draw((tokens, grid.shape[0]), 1, dtype), draw((tokens, grid.shape[1]), 2, dtype)
    strict = pltpu.InterpretParams(out_of_bounds_reads="raise", uninitialized_memory="nan")
    with pltpu.force_tpu_interpret_mode(strict), jax.default_matmul_precision("highest"):
        norms = jax.jit(functools.partial(block_norms, V5E, grid=grid))(x, gy)
    np.testing.assert_allclose(norms, norms_float64(x, gy, grid), rtol=1e-5)


def test_tiles_are_as_large_as_fits():
    grid = BlockGrid((2048, 5504), (128, 128))
    tiles = norm_tiles(V5E, grid, 8192, jnp.bfloat16)
    assert (tiles.tokens, tiles.rows, tiles.columns) == (512, 8, 8)
    v4 = chip_named("v4")
    small = norm_tiles(v4, grid, 8192, jnp.float32)
    assert (small.rows, small.columns) == (4, 4) and small.vmem_bytes <= usable_vmem(v4)
    # Nine rows are two tiles of five, not one of eight and one of one.
    assert norm_tiles(V5E, BlockGrid((1152, 128), (128, 128)), 8, jnp.float32).rows == 5


@pytest.mark.tpu
@pytest.mark.parametrize("chip", pallas_tpu.CHIPS)
def test_every_tpu_compiles_it(chip):
    chip = chip_named(chip)
    grid = BlockGrid((1280, 2304), (128, 128))
    arguments = [jax.ShapeDtypeStruct((1000, width), jnp.float32) for width in grid.shape]
    program = jax.jit(functools.partial(block_norms, chip, grid=grid))
    compiled = program.lower(*on_device(arguments, described_device(chip))).compile()
    assert "block_norms" in compiled.as_text()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 1280 * 2304 / 4, "the gradient is in memory"
