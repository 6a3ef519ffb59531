"""The contract of ``block_matmul``: every implementation, every kind of weight, against float64 numpy."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul, unsupported
from sparsejax.topology.blocks import BlockGrid, BlockSparse, active_mask
from tests.kernels.cases import CASES, Case, blocks_float64, dense_float64, full, make_weight

PORTABLE = ("reference", "transient", "xla", "bcoo", "batched")
# Tiles of one chip stand for all: they differ in lengths only, and tests/kernels/tpu_tiles_test.py is about those.
NAMES = (*PORTABLE, "pallas_tpu@v5e")
# It takes no float32: its contract is gpu_contract.py, run by gpu_interpreter_test.py and by tests/gpu.
ELSEWHERE = {"pallas_gpu"}
BLOCKS = sorted({case.grid.block for case in CASES.values()})
# What each implementation refuses. A new refusal has to be written here, so nothing narrows silently.
REFUSED = {("xla", (1, 1))} | {("pallas_tpu@v5e", b) for b in [(1, 1), (1, 4), (8, 8), (16, 32)]}

RUNS = [(n, c) for n in NAMES for c in CASES if (n, CASES[c].grid.block) not in REFUSED]


@pytest.fixture(autouse=True)
def simulated_tpu():
    """Pallas kernels run on a simulated TPU: a read out of bounds raises, memory nobody wrote is NaN."""
    strict = pltpu.InterpretParams(out_of_bounds_reads="raise", uninitialized_memory="nan")
    with pltpu.force_tpu_interpret_mode(strict):
        yield


def test_every_implementation_is_under_contract():
    covered = {name.partition("@")[0] for name in NAMES} | ELSEWHERE
    assert {name.partition("@")[0] for name in IMPLEMENTATIONS} == covered


def relative_error(got: jax.Array, want: np.ndarray) -> float:
    return float(np.max(np.abs(np.asarray(got, np.float64) - want)) / max(np.max(np.abs(want)), 1e-30))


def product_and_gradients(name: str, x: jax.Array, weight: BlockSparse, gy: jax.Array):
    def run(x: jax.Array, weight: BlockSparse, gy: jax.Array):
        def product(x: jax.Array, values: jax.Array) -> jax.Array:
            return block_matmul(x, dataclasses.replace(weight, values=values), implementation=name)

        y, pull = jax.vjp(product, x, weight.values)
        return y, *pull(gy)

    with jax.default_matmul_precision("highest"):
        return jax.jit(run)(x, weight, gy)


def draw(shape: tuple[int, ...], seed: int, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("block", BLOCKS)
def test_what_an_implementation_refuses_is_written_down(name, block):
    assert bool(unsupported(name, BlockGrid((block[0] * 2, block[1] * 2), block), jnp.float32)) == (
        (name, block) in REFUSED
    )


@pytest.mark.parametrize(("name", "case"), RUNS)
def test_float32_against_float64(name, case):
    weight, tokens = make_weight(CASES[case], seed=1), CASES[case].tokens
    (K, N), dense = weight.grid.shape, dense_float64(weight)
    x, gy = draw((tokens, K), 2), draw((tokens, N), 3)
    y, gx, gvalues = product_and_gradients(name, x, weight, gy)
    x64, gy64 = np.asarray(x, np.float64), np.asarray(gy, np.float64)
    assert (y.dtype, gx.dtype, gvalues.dtype) == (jnp.float32,) * 3
    assert relative_error(y, x64 @ dense) < 1e-5
    assert relative_error(gx, gy64 @ dense.T) < 1e-5
    assert relative_error(gvalues, blocks_float64(x64.T @ gy64, weight)) < 1e-5
    free = ~np.asarray(active_mask(weight.index, weight.grid))
    assert free.sum() >= CASES[case].free * weight.grid.shards
    assert not np.any(np.asarray(gvalues)[free]), "a free slot has a gradient"


@pytest.mark.parametrize(
    ("name", "case"), [r for r in RUNS if r[1] in ("unstructured", "flat", "row_shares", "wide_blocks", "balanced")]
)
def test_bfloat16_activations_and_float32_values(name, case):
    weight, tokens = make_weight(CASES[case], seed=1), CASES[case].tokens
    K, N = weight.grid.shape
    x, gy = draw((tokens, K), 2, jnp.bfloat16), draw((tokens, N), 3, jnp.bfloat16)
    y, gx, gvalues = product_and_gradients(name, x, weight, gy)
    assert (y.dtype, gx.dtype, gvalues.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    dense = dense_float64(weight)
    x64, gy64 = np.asarray(x, np.float64), np.asarray(gy, np.float64)
    assert relative_error(y, x64 @ dense) < 1e-2
    assert relative_error(gx, gy64 @ dense.T) < 1e-2
    # The operands are exact in bfloat16, so a gradient that was never rounded to it is float32-accurate.
    assert relative_error(gvalues, blocks_float64(x64.T @ gy64, weight)) < 1e-5


def stacked_layers(name: str, balance: str) -> tuple[list[BlockSparse], BlockSparse]:
    """Three layers of one kind, apart and on a leading axis."""
    side = 128 if name.startswith("pallas") else 8
    grid = BlockGrid((4 * side, 4 * side), (side, side), balance=balance)
    case = Case(grid, _eight_blocks(balance), free=int(balance == "none"), tokens=6)
    layers = [make_weight(case, seed) for seed in (1, 2, 3)]
    return layers, jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


@pytest.mark.parametrize("balance", ["none", "column"])
@pytest.mark.parametrize("name", NAMES)
def test_stacked_layers_under_vmap(name, balance):
    layers, stacked = stacked_layers(name, balance)
    width = layers[0].grid.shape[0]
    x, gy = draw((3, 2, width), 4), draw((3, 2, width), 5)
    y, gx, gvalues = jax.jit(jax.vmap(lambda *one: product_and_gradients(name, *one)))(x, stacked, gy)
    for i, layer in enumerate(layers):
        dense, x64, gy64 = dense_float64(layer), np.asarray(x[i], np.float64), np.asarray(gy[i], np.float64)
        assert relative_error(y[i], x64 @ dense) < 1e-5
        assert relative_error(gx[i], gy64 @ dense.T) < 1e-5
        assert relative_error(gvalues[i], blocks_float64(x64.T @ gy64, layer)) < 1e-5


# The simulated TPU is made of ordered callbacks, which JAX cannot differentiate through inside a scan or a
# checkpoint. Kernels in them are compiled instead: tests/kernels/pallas_tpu_test.py.
@pytest.mark.parametrize("balance", ["none", "column"])
@pytest.mark.parametrize("name", PORTABLE)
def test_gradients_of_a_scan_over_layers_with_checkpoint(name, balance):
    layers, stacked = stacked_layers(name, balance)
    x, gy = draw((2, 3, 32), 4), draw((2, 3, 32), 5)

    @jax.jit
    def chain(x: jax.Array, values: jax.Array) -> jax.Array:
        layer = jax.checkpoint(lambda h, w: block_matmul(h, w, implementation=name))
        weights = dataclasses.replace(stacked, values=values)
        return jnp.vdot(jax.lax.scan(lambda h, w: (layer(h, w), None), x, weights)[0], gy)

    gx, gvalues = jax.grad(chain, argnums=(0, 1))(x, stacked.values)
    dense = [dense_float64(layer) for layer in layers]
    x64, gy64 = np.asarray(x, np.float64), np.asarray(gy, np.float64)
    assert relative_error(gx, gy64 @ (dense[0] @ dense[1] @ dense[2]).T) < 1e-5
    before_last = (x64 @ dense[0] @ dense[1]).reshape(6, 32)
    want = blocks_float64(before_last.T @ gy64.reshape(6, 32), layers[2])
    assert relative_error(gvalues[2], want) < 1e-5


def _eight_blocks(balance: str):
    """Layers must agree in their number of slots: 8 blocks on a 4 x 4 grid, 2 in every column or anywhere."""

    def mask(grid: BlockGrid, rng: np.random.Generator) -> np.ndarray:
        if balance == "column":
            return np.stack([rng.permutation([True, True, False, False]) for _ in range(4)], axis=1)
        return (rng.permutation(16) < 8).reshape(grid.rows, grid.columns)

    return mask


LOWERED = Case(BlockGrid((48, 80), (8, 8)), full, free=0, tokens=3)
LOWERED_WIDE = Case(BlockGrid((128, 192), (64, 64)), full, free=0, tokens=3)


def lowered(name: str, case: Case) -> jax.stages.Lowered:
    weight = make_weight(case, seed=1)

    def loss(x: jax.Array, values: jax.Array) -> jax.Array:
        return block_matmul(x, dataclasses.replace(weight, values=values), implementation=name).sum()

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(draw((3, case.grid.shape[0]), 1), weight.values)


@pytest.mark.parametrize("name", PORTABLE)
def test_the_named_implementation_is_in_the_program(name):
    text = lowered(name, LOWERED).as_text(debug_info=True)
    named = {other for other in PORTABLE if f"block_matmul_{other}/" in text or f"block_matmul_{other})" in text}
    assert named == {name}
    # Signatures that cannot be renamed into being: loops over blocks, a dense weight, neither.
    structure = ("stablehlo.while" in text, "tensor<48x80xf32>" in text)
    assert structure == {"xla": (True, False), "bcoo": (False, False), "batched": (False, False)}.get(
        name, (False, True)
    )


@pytest.mark.parametrize("balance", ["none", "column"])
@pytest.mark.parametrize(
    ("case", "carries"),
    [
        # y, gx, x_f and gx_f, dV, dV with spare slots, dV by columns, in this order.
        (LOWERED, "3,80|3,48|6,8,3|60,8,8|67,8,8|10,6,8,8"),
        (LOWERED_WIDE, "3,192|3,128|2,64,3|6,64,64|3,2,64,64"),
    ],
    ids=["narrow", "wide"],
)
def test_xla_loops_update_their_carries_in_place(case, carries, balance):
    case = dataclasses.replace(case, grid=dataclasses.replace(case.grid, balance=balance))
    text = lowered("xla", case).compile().as_text()
    bodies = set(re.findall(r"body=%([\w.]+)", text))
    loops = [part for part in text.split("\n\n") if (name := re.match(r"%([\w.]+) \(", part)) and name[1] in bodies]
    assert len(loops) == len(bodies) > 0
    for line in "\n".join(loops).splitlines():
        copied = re.search(rf"= f32\[({carries})\]\S* copy\(", line)
        assert not copied, f"a loop copies its carry: {line.strip()}"


@pytest.mark.parametrize("name", PORTABLE)
def test_residuals_are_the_inputs_only(name):
    weight = make_weight(LOWERED, seed=1)
    _, pull = jax.vjp(
        lambda x, v: block_matmul(x, dataclasses.replace(weight, values=v), implementation=name),
        draw((3, 48), 1),
        weight.values,
    )
    floating = [leaf.shape for leaf in jax.tree.leaves(pull) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert sorted(floating) == [(3, 48), (60, 8, 8)]


def test_errors_say_what_is_wrong_in_one_line():
    weight, unstructured = make_weight(CASES["square"], 1), make_weight(CASES["unstructured"], 1)
    x = jnp.zeros((2, 32))
    for error, pattern, call in [
        (
            ValueError,
            "legal names are reference, transient, xla, bcoo, batched, pallas_tpu@v4",
            lambda: run("pallas", x, weight),
        ),
        (ValueError, "legal names", lambda: run("auto", x, weight)),
        (
            ValueError,
            r"does not support 6x8 in blocks of 1x1, float32.*use transient",
            lambda: run("xla", x[:, :6], unstructured),
        ),
        (ValueError, "last axis must be the weight's input width K=32", lambda: run("xla", x[:, :31], weight)),
        (ValueError, "must be [n, 8, 8]".replace("[", r"\["), lambda: run("xla", x, _stack(weight))),
        (TypeError, "x of dtype int32: must be floating point", lambda: run("xla", x.astype(jnp.int32), weight)),
    ]:
        with pytest.raises(error, match=pattern) as caught:
            call()
        assert "\n" not in str(caught.value)


def run(name: str, x: jax.Array, weight: BlockSparse) -> jax.Array:
    return block_matmul(x, weight, implementation=name)


def _stack(weight: BlockSparse) -> BlockSparse:
    return dataclasses.replace(weight, values=weight.values[None])
