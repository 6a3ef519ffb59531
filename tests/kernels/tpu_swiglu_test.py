"""The gradient of gate and up side by side: numbers on a simulated TPU, programs by the compiler of each real one."""

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
from sparsejax.kernels.swiglu import swiglu
from sparsejax.kernels.tpu_swiglu import swiglu_gradient
from sparsejax.topology.blocks import BlockGrid
from sparsejax.topology.concatenate import join_columns
from tests.kernels.contract_test import draw


@pytest.mark.parametrize(("tokens", "shards", "dtype"), [(37, 1, "float32"), (37, 2, "bfloat16")])
def test_numbers_on_a_simulated_tpu(tokens, shards, dtype):
    grid = BlockGrid((128, 256), (128, 128), shards)
    gate, up, gh = (draw((tokens, 256), seed, dtype) for seed in (1, 2, 3))
    strict = pltpu.InterpretParams(out_of_bounds_reads="raise", uninitialized_memory="nan")
    with pltpu.force_tpu_interpret_mode(strict):
        got = jax.jit(functools.partial(swiglu_gradient, grid=grid))(join_columns((gate, up), grid), gh)
    want = join_columns(jax.vjp(swiglu, gate, up)[1](gh), grid)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(
        got.astype(jnp.float32), want.astype(jnp.float32), rtol=1e-2 if dtype == "bfloat16" else 1e-5, atol=1e-6
    )


@pytest.mark.tpu
@pytest.mark.parametrize("chip", pallas_tpu.CHIPS)
def test_every_tpu_compiles_it(chip):
    grid = BlockGrid((128, 28672), (128, 128), 4)
    arguments = [jax.ShapeDtypeStruct((1000, width), jnp.bfloat16) for width in (2 * 28672, 28672)]
    program = jax.jit(functools.partial(swiglu_gradient, grid=grid))
    compiled = program.lower(*on_device(arguments, described_device(chip_named(chip)))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**16, "something is copied"
