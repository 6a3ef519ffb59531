"""The kernels for GPUs without a GPU: what they refuse, and that what they take lowers for CUDA.

Lowering runs Mosaic GPU up to the code that the driver's compiler gets: layouts, transposed views, tensor copies and
the budget of shared memory are checked; numerics are not (gpu_interpreter_test.py), nor is machine code.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from sparsejax.config import ConfigError
from sparsejax.hardware.chips import chip_named
from sparsejax.hardware.target import Target
from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul, unsupported
from sparsejax.kernels.auto import resolve
from sparsejax.kernels.pallas_gpu import implementation_for
from sparsejax.topology.blocks import BlockGrid, BlockSparse
from tests.kernels.cases import Case, make_weight, scattered
from tests.kernels.gpu_contract import CASES, NAME, draw

GRID = BlockGrid((256, 256), (128, 128))
SMALL = Case(BlockGrid((256, 256), (64, 64)), scattered, free=1, tokens=8)


def kernels_in(function, *arguments) -> list[str]:
    """Names of the Mosaic GPU kernels in the program lowered for CUDA."""
    text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    names = ("block_columns", "block_rows", "block_values", "block_norms")
    calls = [line for line in text.splitlines() if "custom_call" in line and "mosaic_gpu" in line]
    return [next(name for name in names if f"@{name}" in line or name in line) for line in calls]


def loss(x: jax.Array, values: jax.Array, weight: BlockSparse) -> jax.Array:
    y = block_matmul(x, dataclasses.replace(weight, values=values), implementation=NAME)
    return jnp.sum(y.astype(jnp.float32) ** 2)


@pytest.mark.parametrize(
    ("grid", "dtype", "reason"),
    [
        (GRID, jnp.float32, "multiply bfloat16 or float16; cast the activations, or use transient"),
        (GRID, jnp.float64, "multiply bfloat16 or float16"),
        (BlockGrid((256, 256), (32, 32)), jnp.bfloat16, "blocks with sides of 64 or 128; use transient"),
        (BlockGrid((256, 256), (128, 256)), jnp.bfloat16, "blocks with sides of 64 or 128"),
        (BlockGrid((6, 8), (1, 1)), jnp.bfloat16, "blocks with sides of 64 or 128"),
    ],
)
def test_what_is_refused_is_refused_by_name_in_one_line(grid, dtype, reason):
    assert reason in unsupported(NAME, grid, dtype)
    with pytest.raises(ConfigError, match=f"^model.implementation=pallas_gpu: does not support .*{reason}") as caught:
        resolve("pallas_gpu", target=Target("gpu", "h200"), grid=grid, density=0.5, dtype=dtype)
    assert "\n" not in str(caught.value)


def test_float32_activations_stop_before_anything_compiles():
    weight = make_weight(SMALL, seed=1)
    with pytest.raises(ValueError, match=r"'pallas_gpu@h200' does not support 256x256 .* float32: the tensor cores"):
        block_matmul(jnp.zeros((8, 256)), weight, implementation=NAME)


def test_a_chip_with_too_little_shared_memory_is_refused():
    small = dataclasses.replace(chip_named("h200"), name="small", kernel_memory_bytes=48 * 2**10)
    reason = implementation_for(small).unsupported(GRID, jnp.bfloat16)
    assert reason == (
        "blocks of 128x128 take 134144 bytes of shared memory a thread block; small has 49152; use smaller blocks"
    )


def test_both_chips_are_registered_and_no_other():
    assert {name for name in IMPLEMENTATIONS if name.startswith("pallas_gpu")} == {"pallas_gpu@h100", NAME}
    assert resolve("pallas_gpu", target=Target("gpu", "h100"), grid=GRID, density=0.5, dtype=jnp.float16)
    with pytest.raises(ConfigError, match="is for h100, h200, and this run is on a100-80gb; use auto"):
        resolve("pallas_gpu", target=Target("gpu", "a100-80gb"), grid=GRID, density=0.5, dtype=jnp.float16)


@pytest.mark.parametrize("case", ["one_line", "row_shares"])
def test_three_kernels_lower_for_cuda(case):
    weight = make_weight(CASES[case], seed=1)
    x = draw((CASES[case].tokens, weight.grid.shape[0]), 2, jnp.bfloat16)
    found = kernels_in(jax.grad(loss, argnums=(0, 1)), x, weight.values, weight)
    assert sorted(found) == ["block_columns", "block_rows", "block_values"]


@pytest.mark.parametrize("block", [(64, 128), (128, 64)])
def test_block_norms_lower_for_cuda(block):
    grid = BlockGrid((256, 384), block)
    x, gy = draw((100, 256), 2, jnp.float16), draw((100, 384), 3, jnp.float16)
    assert kernels_in(lambda x, gy: IMPLEMENTATIONS[NAME].block_norms(x, gy, grid), x, gy) == ["block_norms"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("case", CASES)
def test_every_case_lowers_for_cuda(case, dtype):
    weight = make_weight(CASES[case], seed=1)
    x = draw((CASES[case].tokens, weight.grid.shape[0]), 2, dtype)
    assert len(kernels_in(jax.grad(loss, argnums=(0, 1)), x, weight.values, weight)) == 3


def test_layers_lower_stacked_and_in_a_scan_with_checkpoint():
    layers = [make_weight(SMALL, seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    x = draw((2, 8, 256), 4, jnp.bfloat16)
    each = jax.vmap(lambda h, w: block_matmul(h, w, implementation=NAME))
    assert kernels_in(each, x, stacked) == ["block_columns"]

    def chain(h: jax.Array, values: jax.Array) -> jax.Array:
        layer = jax.checkpoint(lambda h, w: block_matmul(h, w, implementation=NAME))
        weights = dataclasses.replace(stacked, values=values)
        return jnp.sum(jax.lax.scan(lambda h, w: (layer(h, w), None), h, weights)[0].astype(jnp.float32))

    found = kernels_in(jax.grad(chain, argnums=(0, 1)), x[0], stacked.values)
    assert sorted(found) == ["block_columns", "block_rows", "block_values"]


@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_lower_inside_shard_map(check_vma):
    weight, mesh = make_weight(SMALL, seed=1), Mesh(np.array(jax.devices()[:2]), ("data",))
    rows = PartitionSpec("data")

    def gradients(x: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = jax.lax.pcast(values, "data", to="varying") if check_vma else values
        gx, gvalues = jax.grad(loss, argnums=(0, 1))(x, values, weight)
        return gx, jax.lax.psum(gvalues, "data")

    shared = jax.shard_map(
        gradients,
        mesh=mesh,
        in_specs=(rows, PartitionSpec()),
        out_specs=(rows, PartitionSpec()),
        check_vma=check_vma,
    )
    found = kernels_in(shared, draw((16, 256), 2, jnp.bfloat16), weight.values)
    assert sorted(found) == ["block_columns", "block_rows", "block_values"]
