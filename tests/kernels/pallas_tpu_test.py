"""The TPU kernels through the TPU's own compiler, and what is refused before it runs.

Numbers are checked in contract_test.py on a simulated TPU.
"""

from __future__ import annotations

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparsejax.config import ConfigError
from sparsejax.hardware.chips import chip_named
from sparsejax.hardware.target import Target
from sparsejax.hardware.topologies import described_device, on_device
from sparsejax.kernels import auto, pallas_tpu, tpu_tiles
from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul, unsupported
from sparsejax.topology.blocks import BlockGrid, BlockSparse, abstract_index

KERNELS = ("block_matmul_forward", "block_matmul_input_gradient", "block_matmul_value_gradient")


def abstract_weight(grid: BlockGrid, slots: int, *leading: int) -> BlockSparse:
    """Shapes of a weight, or of stacked layers of it."""
    draft = BlockSparse(jax.ShapeDtypeStruct((slots, *grid.block), jnp.float32), abstract_index(grid, slots), grid)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*leading, *leaf.shape), leaf.dtype), draft)


def kernels_in(text: str) -> set[str]:
    return {name for name in KERNELS if re.search(rf"tpu_custom_call.*/{name}/pallas_call", text)}


def layers_loss(name: str, x: jax.Array, values: jax.Array, layers: BlockSparse) -> jax.Array:
    """A scan over stacked layers whose body is recomputed in the backward pass."""

    @jax.checkpoint
    def layer(x: jax.Array, weight: BlockSparse) -> jax.Array:
        return block_matmul(x, weight, implementation=name)

    weights = dataclasses.replace(layers, values=values)
    return jax.lax.scan(lambda x, weight: (layer(x, weight), None), x, weights)[0].astype(jnp.float32).sum()


CHIPS_AND_DTYPES = [(chip, "bfloat16") for chip in pallas_tpu.CHIPS] + [("v5e", "float32"), ("v6e", "float32")]


@pytest.mark.tpu
@pytest.mark.parametrize(("chip", "dtype"), CHIPS_AND_DTYPES)
def test_every_tpu_compiles_all_products_in_a_scan_with_checkpoint(chip, dtype):
    block = (128, 128) if chip in ("v4", "v5e", "v5p") else (256, 256)
    grid = BlockGrid((1024, 1024), block, shards=2, shard_axis="rows")
    layers = abstract_weight(grid, grid.cells // 2, 3)
    x = jax.ShapeDtypeStruct((300, 1024), dtype)
    gradient = jax.jit(jax.grad(functools.partial(layers_loss, f"pallas_tpu@{chip}"), argnums=(0, 1)))
    compiled = gradient.lower(*on_device((x, layers.values, layers), described_device(chip_named(chip)))).compile()
    text = compiled.as_text()
    assert kernels_in(text) == set(KERNELS)
    assert "[1024,1024]" not in text, "a dense weight or gradient"


@pytest.mark.tpu
def test_a_program_of_four_tpus_with_tokens_and_columns_shared_out():
    """Every device multiplies its tokens with its share of the columns; the sum of gX is the caller's."""
    described_device(chip_named("v5e"))  # waits for the compiler
    devices = jax.experimental.topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    mesh = Mesh(np.array(devices).reshape(2, 2), ("data", "tensor"))
    P, grid = PartitionSpec, BlockGrid((512, 256), (128, 128))
    weight = abstract_weight(grid, 4, 2)

    def product(x: jax.Array, share: BlockSparse) -> jax.Array:
        return block_matmul(x, jax.tree.map(lambda leaf: leaf[0], share), implementation="pallas_tpu@v5e")

    def loss(x: jax.Array, values: jax.Array, weight: BlockSparse) -> jax.Array:
        shares = dataclasses.replace(weight, values=values)
        specs = (P("data", None), P("tensor"))
        sharded = jax.shard_map(product, mesh=mesh, in_specs=specs, out_specs=P("data", "tensor"), check_vma=False)
        return sharded(x, shares).astype(jnp.float32).sum()

    def placed(leaf: jax.ShapeDtypeStruct, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    x = placed(jax.ShapeDtypeStruct((64, 512), jnp.bfloat16), P("data", None))
    arguments = jax.tree.map(lambda leaf: placed(leaf, P("tensor")), (weight.values, weight))
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, *arguments).compile()
    assert kernels_in(compiled.as_text()) == set(KERNELS[1:]), "the forward's output is not needed"


@pytest.mark.parametrize(
    ("grid", "dtype", "reason"),
    [
        (BlockGrid((512, 512), (64, 128)), "bfloat16", "multiples of 128"),
        (BlockGrid((512, 512), (128, 32)), "bfloat16", "multiples of 128"),
        (BlockGrid((512, 512), (1, 1)), "bfloat16", "multiples of 128"),
        (BlockGrid((512, 512), (128, 128)), "float16", "take bfloat16 and float32"),
        (BlockGrid((45824, 45824), (128, 128)), "bfloat16", r"index lists take \d+ bytes and SMEM has 819200"),
    ],
)
def test_what_no_tpu_can_take_is_said_before_anything_compiles(grid, dtype, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        auto.resolve("pallas_tpu", target=Target("tpu", "v5e"), grid=grid, density=0.25, dtype=dtype)
    assert "\n" not in str(caught.value)
    assert unsupported("pallas_tpu@v5e", grid, dtype) in str(caught.value)


def test_a_weight_that_does_not_fit_is_refused_by_chip():
    grid = BlockGrid((4096, 22016), (128, 128))
    x, weight = jax.ShapeDtypeStruct((8192, 4096), jnp.bfloat16), abstract_weight(grid, grid.cells // 2)
    shapes = {}
    for chip in ("v5e", "v5p"):
        program = functools.partial(block_matmul, implementation=f"pallas_tpu@{chip}")
        try:
            shapes[chip] = jax.eval_shape(program, x, weight).shape
        except ConfigError as error:
            shapes[chip] = str(error)
    assert shapes["v5e"] == (8192, 22016)
    assert re.fullmatch(
        r"model\.implementation=pallas_tpu: 4096 x 22016 with 2752 blocks of 128x128 needs \d+ MiB of VMEM and v5p has "
        r"58; lower the density, shard the weight or use transient",
        shapes["v5p"],
    )
    assert not IMPLEMENTATIONS["pallas_tpu@v5p"].groups(grid, grid.cells // 2, 8192, "bfloat16")
    assert IMPLEMENTATIONS["pallas_tpu@v5e"].groups(grid, grid.cells // 8, 8192, "bfloat16")


def test_another_device_than_a_tpu_is_refused_by_name():
    grid = BlockGrid((512, 512), (128, 128))
    refused = {
        Target("cpu", None): "is on a cpu;",
        Target("tpu", None): "a tpu that is not in",
        Target("gpu", "h200"): "is on h200",
    }
    for target, words in refused.items():
        with pytest.raises(ConfigError, match=f"pallas_tpu: is for v4, v5e, v5p, v6e, tpu7x.*{words}.*use auto"):
            auto.resolve("pallas_tpu", target=target, grid=grid, density=0.25, dtype="bfloat16")


@pytest.mark.parametrize("chip", pallas_tpu.CHIPS)
@pytest.mark.parametrize("shape", [(2048, 5632), (5632, 2048), (768, 2048)])
@pytest.mark.parametrize("tokens", [7, 300, 8192])
def test_tiles_hold_what_they_promise(chip, shape, tokens):
    """Panels are whole registers, several lines stay inside a step, and nothing passes the chip's memory."""
    grid, budget = BlockGrid(shape, (128, 128)), tpu_tiles.usable_vmem(chip_named(chip))
    slots = grid.cells // 8
    by_row = shape[0] < shape[1]
    lines = tpu_tiles.line_tiles(chip_named(chip), grid, slots, tokens, "bfloat16", by_row=by_row)
    assert lines.tokens % 16 == 0 and lines.vmem_bytes <= budget
    assert lines.tokens - 16 < max(tokens, 16)
    assert 1 <= lines.lines <= (grid.rows if by_row else grid.columns)
    sums = tpu_tiles.value_tiles(chip_named(chip), grid, slots, tokens, "bfloat16")
    assert sums.tokens % 16 == 0 and sums.vmem_bytes <= budget and 1 <= sums.slots <= slots
    if tokens == 8192:
        assert tokens % sums.tokens == 0, "a panel past the last token masks every product"


def test_v4_is_too_small_for_the_layers_of_7b():
    grid = BlockGrid((11008, 4096), (128, 128))
    with pytest.raises(ConfigError, match=r"needs 1[56] MiB of VMEM and v4 has 14"):
        tpu_tiles.line_tiles(chip_named("v4"), grid, grid.cells // 8, 8192, "bfloat16", by_row=False)
