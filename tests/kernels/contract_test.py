"""The contract of ``block_matmul``: every implementation, every kind of weight, against float64 numpy."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.kernels.api import IMPLEMENTATIONS, block_matmul, unsupported
from sparsejax.topology.blocks import BlockGrid, BlockSparse, active_mask
from tests.kernels.cases import CASES, Case, blocks_float64, dense_float64, full, make_weight

NAMES = tuple(IMPLEMENTATIONS)
# What each implementation refuses. A new refusal has to be written here, so nothing narrows silently.
REFUSED = {("xla", (1, 1))}

RUNS = [(n, c) for n in NAMES for c in CASES if (n, CASES[c].grid.block) not in REFUSED]


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
@pytest.mark.parametrize("block", sorted({case.grid.block for case in CASES.values()}))
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


@pytest.mark.parametrize("balance", ["none", "column"])
@pytest.mark.parametrize("name", NAMES)
def test_stacked_layers_under_vmap_and_under_scan_with_checkpoint(name, balance):
    case = CASES["balanced"] if balance == "column" else dataclasses.replace(CASES["square"], free=1)
    case = dataclasses.replace(case, grid=dataclasses.replace(case.grid, shape=(32, 32)), mask=_eight_blocks(balance))
    layers = [make_weight(case, seed) for seed in (1, 2, 3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    x = draw((3, 2, 3, 32), 4)
    gy = draw((2, 3, 32), 5)

    def chain(x: jax.Array, values: jax.Array) -> jax.Array:
        layer = jax.checkpoint(lambda h, w: block_matmul(h, w, implementation=name))
        weights = dataclasses.replace(stacked, values=values)
        return jnp.vdot(jax.lax.scan(lambda h, w: (layer(h, w), None), x[0], weights)[0], gy)

    @jax.jit
    def run(x: jax.Array, values: jax.Array):
        weights = dataclasses.replace(stacked, values=values)
        each = jax.vmap(lambda h, w: block_matmul(h, w, implementation=name))(x, weights)
        return each, jax.grad(chain, argnums=(0, 1))(x, values)

    each, (gx, gvalues) = run(x, stacked.values)
    dense = [dense_float64(layer) for layer in layers]
    x64, gy64 = np.asarray(x, np.float64), np.asarray(gy, np.float64)
    for i in range(3):
        assert relative_error(each[i], x64[i] @ dense[i]) < 1e-5
    assert relative_error(gx[0], gy64 @ (dense[0] @ dense[1] @ dense[2]).T) < 1e-5
    before_last = (x64[0] @ dense[0] @ dense[1]).reshape(-1, 32)
    want = blocks_float64(before_last.T @ gy64.reshape(-1, 32), layers[2])
    assert relative_error(gvalues[2], want) < 1e-5


def _eight_blocks(balance: str):
    """Layers must agree in their number of slots: 8 blocks on a 4 x 4 grid, 2 in every column or anywhere."""

    def mask(grid: BlockGrid, rng: np.random.Generator) -> np.ndarray:
        if balance == "column":
            return np.stack([rng.permutation([True, True, False, False]) for _ in range(4)], axis=1)
        return (rng.permutation(16) < 8).reshape(grid.rows, grid.columns)

    return mask


LOWERED = Case(BlockGrid((48, 80), (8, 8)), full, free=0, tokens=3)
LOWERED_BALANCED = dataclasses.replace(LOWERED, grid=dataclasses.replace(LOWERED.grid, balance="column"))


def lowered(name: str, case: Case) -> jax.stages.Lowered:
    weight = make_weight(case, seed=1)

    def loss(x: jax.Array, values: jax.Array) -> jax.Array:
        return block_matmul(x, dataclasses.replace(weight, values=values), implementation=name).sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(draw((3, 48), 1), weight.values)


@pytest.mark.parametrize("name", NAMES)
def test_the_named_implementation_is_in_the_program(name):
    text = lowered(name, LOWERED).as_text(debug_info=True)
    named = {other for other in NAMES if f"block_matmul_{other}/" in text or f"block_matmul_{other})" in text}
    assert named == {name}
    # Signatures that cannot be renamed into being: loops over blocks, a dense weight, neither.
    structure = ("stablehlo.while" in text, "tensor<48x80xf32>" in text)
    assert structure == {"xla": (True, False), "bcoo": (False, False)}.get(name, (False, True))


@pytest.mark.parametrize("case", [LOWERED, LOWERED_BALANCED], ids=["any", "balanced"])
def test_xla_loops_update_their_carries_in_place(case):
    text = lowered("xla", case).compile().as_text()
    bodies = set(re.findall(r"body=%([\w.]+)", text))
    loops = [part for part in text.split("\n\n") if (name := re.match(r"%([\w.]+) \(", part)) and name[1] in bodies]
    assert len(loops) == len(bodies) > 0
    for line in "\n".join(loops).splitlines():
        # y_f, x_f and dx_f, dV and dV with spare slots, in this order.
        copied = re.search(r"= f32\[(10,8,3|6,8,3|60,8,8|75,8,8)\]\S* copy\(", line)
        assert not copied, f"a loop copies its carry: {line.strip()}"


@pytest.mark.parametrize("name", NAMES)
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
        (ValueError, "legal names are reference, transient, xla, bcoo", lambda: run("pallas", x, weight)),
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
