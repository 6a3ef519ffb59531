"""The contract of the kernels for GPUs on a GPU: what the interpreter cannot show, products that run on their own time.

Small cases against float64 numpy; the shapes of real layers against the dense product of the same GPU.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.kernels.api import block_matmul
from sparsejax.topology.blocks import BlockGrid, BlockSparse, gather_blocks, to_dense
from tests.kernels.cases import Case, dense_float64, full, make_weight, scattered
from tests.kernels.gpu_contract import CASES, check, check_norms, compare, draw, exact, product_and_gradients

BLOCKS = [(64, 64), (64, 128), (128, 64), (128, 128)]
DTYPES = [jnp.bfloat16, jnp.float16]


def part(density: float):
    """That part of all places at random, at least one of them; some lines stay empty where it is small."""

    def mask(grid: BlockGrid, rng: np.random.Generator) -> np.ndarray:
        count = max(1, round(grid.cells * density))
        return (rng.permutation(grid.cells) < count).reshape(grid.rows, grid.columns)

    return mask


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_the_cases_of_the_interpreter(name, case, dtype):
    check(CASES[case], dtype, name)


@pytest.mark.parametrize("density", [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 64])
@pytest.mark.parametrize("block", BLOCKS)
def test_densities(name, block, density):
    check(Case(BlockGrid((1024, 1536), block), part(density), free=3, tokens=1000), jnp.bfloat16, name)


@pytest.mark.parametrize("tokens", [1, 7, 8, 63, 64, 65, 127, 255, 256, 257, 777, 4096])
def test_token_counts(name, tokens):
    check(Case(BlockGrid((512, 640), (128, 128)), scattered, free=1, tokens=tokens), jnp.bfloat16, name)


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize("block", BLOCKS)
def test_shares(name, block, axis):
    check(Case(BlockGrid((1024, 1024), block, 4, axis), scattered, free=2, tokens=520), jnp.bfloat16, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", BLOCKS)
def test_block_norms(name, block, dtype):
    check_norms(BlockGrid((1152, 1920), block), 1000, dtype, name)


# Gate and down of 130m and 1b (MLP widths in whole blocks), and a gate of 7b: many items a thread block, many bands.
LAYERS = [(768, 2048, 8192), (2048, 5504, 8192), (5504, 2048, 8192), (4096, 11008, 4096)]


@pytest.mark.parametrize("density", [1 / 2, 1 / 4, 1 / 16])
@pytest.mark.parametrize(("K", "N", "tokens"), LAYERS)
def test_layers_against_the_dense_product(name, K, N, tokens, density):
    case = Case(BlockGrid((K, N), (128, 128)), part(density), free=1, tokens=tokens)
    weight = exact(case, jnp.bfloat16)
    x, gy = draw((tokens, K), 2, jnp.bfloat16), draw((tokens, N), 3, jnp.bfloat16)
    y, gx, gvalues = product_and_gradients(name, x, weight, gy)

    @jax.jit
    def dense(x: jax.Array, gy: jax.Array, weight: BlockSparse):
        # Operands are exact in bfloat16, so products with float32 sums are the same sums in another order.
        matrix = to_dense(weight).astype(x.dtype)
        y = jnp.dot(x, matrix, preferred_element_type=jnp.float32)
        gx = jnp.dot(gy, matrix.T, preferred_element_type=jnp.float32)
        return y, gx, gather_blocks(jnp.dot(x.T, gy, preferred_element_type=jnp.float32), weight.index, weight.grid)

    wanted = dense(x, gy, weight)
    for product, got, want in zip(("y", "gx", "gvalues"), (y, gx, gvalues), wanted, strict=True):
        compare(product, got, np.asarray(want, np.float64))


def test_results_do_not_depend_on_timing(name):
    case = Case(BlockGrid((2048, 5504), (128, 128)), part(1 / 8), free=0, tokens=8192)
    weight = exact(case, jnp.bfloat16)
    x, gy = draw((8192, 2048), 2, jnp.bfloat16), draw((8192, 5504), 3, jnp.bfloat16)
    first = product_and_gradients(name, x, weight, gy)
    for _ in range(5):
        for one, other in zip(first, product_and_gradients(name, x, weight, gy), strict=True):
            assert np.array_equal(np.asarray(one, np.float32), np.asarray(other, np.float32))


def layers_of(case: Case, count: int) -> tuple[list[BlockSparse], BlockSparse]:
    layers = [make_weight(case, seed) for seed in range(1, count + 1)]
    return layers, jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def test_stacked_layers_under_vmap(name):
    layers, stacked = layers_of(Case(BlockGrid((512, 768), (128, 128)), part(1 / 2), free=1, tokens=300), 3)
    x = draw((3, 300, 512), 4, jnp.bfloat16)
    y = jax.jit(jax.vmap(lambda h, w: block_matmul(h, w, implementation=name)))(x, stacked)
    for i, layer in enumerate(layers):
        layer = dataclasses.replace(layer, values=layer.values.astype(jnp.bfloat16))
        compare("y", y[i], np.asarray(x[i], np.float64) @ dense_float64(layer))


def test_a_scan_of_layers_with_checkpoint(name):
    _, stacked = layers_of(Case(BlockGrid((512, 512), (128, 128)), full, free=1, tokens=264), 3)
    stacked = dataclasses.replace(stacked, values=stacked.values / 512**0.5)
    x = draw((264, 512), 4, jnp.bfloat16)

    def gradients(implementation: str) -> tuple[jax.Array, jax.Array]:
        def chain(h: jax.Array, values: jax.Array) -> jax.Array:
            layer = jax.checkpoint(lambda h, w: block_matmul(h, w, implementation=implementation))
            weights = dataclasses.replace(stacked, values=values)
            return jnp.sum(jax.lax.scan(lambda h, w: (layer(h, w), None), h, weights)[0].astype(jnp.float32) ** 2)

        return jax.jit(jax.grad(chain, argnums=(0, 1)))(x, stacked.values)

    # Both round every layer's output to bfloat16, in different orders of summation.
    for got, want in zip(gradients(name), gradients("transient"), strict=True):
        want64 = np.asarray(want, np.float64)
        assert np.max(np.abs(np.asarray(got, np.float64) - want64)) < 3e-2 * np.max(np.abs(want64))
