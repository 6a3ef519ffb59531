"""Numerics of the kernels for GPUs in the interpreter of Mosaic GPU, which jax has in public since 0.11.

It simulates threads, barriers and tensor copies with their bounds, starts all memory as NaN and looks for races. It
runs products at once, so a stage released while a product still reads it would go unseen.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from sparsejax.kernels import pallas_gpu
from sparsejax.kernels.api import block_matmul
from sparsejax.topology.blocks import BlockGrid
from tests.kernels.cases import Case, dense_float64, full, make_weight, scattered
from tests.kernels.gpu_contract import CASES, NAME, check, check_norms, compare, draw

# gV pairs blocks of a column in the first case and of a row in the second; the others are about shapes.
IN_THE_GATE = {"small_square": jnp.bfloat16, "row_shares": jnp.float16}


@pytest.fixture(autouse=True)
def no_races(capfd):
    with plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(detect_races=True)):
        yield
    assert "RACE" not in capfd.readouterr().out


@pytest.fixture
def few_blocks(monkeypatch):
    """Three thread blocks, a band of one token tile, rings of two: every block turns its ring over many times."""

    def few(tiles, **changes):
        return lambda *args, **kwargs: dataclasses.replace(
            tiles(*args, **kwargs), multiprocessors=3, stages=2, **changes
        )

    monkeypatch.setattr(pallas_gpu, "line_tiles", few(pallas_gpu.line_tiles, band=1))
    monkeypatch.setattr(pallas_gpu, "value_tiles", few(pallas_gpu.value_tiles, splits=2))


@pytest.mark.parametrize("case", IN_THE_GATE)
def test_thread_blocks_with_several_items(case, few_blocks):
    check(CASES[case], IN_THE_GATE[case])


# A row of three: the third has no partner. Columns of three likewise.
@pytest.mark.parametrize("shape", [(128, 384), pytest.param((384, 128), marks=pytest.mark.slow)])
def test_block_norms(shape):
    check_norms(BlockGrid(shape, (64, 128)), 100, jnp.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_case(case):
    check(CASES[case], jnp.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["square", "row_shares", "one_line"])
def test_every_case_with_several_items(case, few_blocks):
    check(CASES[case], jnp.float16)


@pytest.mark.slow
def test_stacked_layers_are_one_kernel_under_vmap():
    case = Case(BlockGrid((128, 192), (64, 64)), scattered, free=1, tokens=9)
    layers = [make_weight(case, seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    x = draw((2, 9, 128), 4, jnp.bfloat16)
    y = jax.vmap(lambda h, w: block_matmul(h, w, implementation=NAME))(x, stacked)
    for i, layer in enumerate(layers):
        compare("y", y[i], np.asarray(x[i], np.float64) @ dense_float64(layer))


@pytest.mark.slow
def test_a_scan_of_layers():
    case = Case(BlockGrid((128, 128), (64, 64)), full, free=0, tokens=8)
    layers = [make_weight(case, seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    x = draw((8, 128), 4, jnp.bfloat16)
    y, _ = jax.lax.scan(lambda h, w: (block_matmul(h, w, implementation=NAME), None), x, stacked)
    compare("y", y, np.asarray(x, np.float64) @ dense_float64(layers[0]) @ dense_float64(layers[1]))
