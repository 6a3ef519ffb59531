"""Which layers of one input become one product, and that nothing else changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.kernels import api
from sparsejax.kernels.xla import XLA
from sparsejax.models.functional import abstract, merge
from sparsejax.models.linear_group import apply_gated, apply_group
from sparsejax.models.sparse_linear import GrowthProbe, SparseLinear
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology.blocks import BlockGrid
from tests.models.llama_test import TOKENS, loss_and_gradients


@pytest.fixture
def widths(monkeypatch) -> list[int]:
    """Output widths of the products of ``grouped``, an implementation that always wants one product."""
    seen: list[int] = []

    def forward(x, weight):
        seen.append(weight.grid.shape[1])
        return XLA.forward(x, weight)

    grouped = dataclasses.replace(XLA, forward=forward, groups=lambda *_: True)
    monkeypatch.setitem(api.IMPLEMENTATIONS, "grouped", grouped)
    return seen


def layer(count: int = 6, capacity: int = 6, implementation: str = "grouped", seed: int = 0) -> SparseLinear:
    keys = jax.random.split(jax.random.key(seed))
    return SparseLinear(
        SparseWeight(name="linear", grid=BlockGrid((16, 24), (4, 4)), count=count, capacity=capacity),
        implementation=implementation,
        compute_dtype="float32",
        std=0.5,
        init_key=keys[0],
        topology_key=keys[1],
    )


def test_blocks_of_one_implementation_are_one_product(widths):
    @jax.jit
    def outputs(x):
        layers = [layer(seed=0), layer(seed=1)]
        together, gated = apply_group(x, layers), apply_gated(x, *layers)
        return together, gated, [one(x) for one in layers]

    together, gated, apart = outputs(jnp.ones((2, 16)))
    assert widths == [48, 48, 24, 24]
    for output, one in zip(together, apart, strict=True):
        np.testing.assert_allclose(output, one, rtol=1e-6)
    np.testing.assert_allclose(gated, jax.nn.silu(together[0]) * together[1], rtol=1e-5)


@pytest.mark.parametrize(
    "other", [{"count": 24, "capacity": 24}, {"capacity": 8}, {"implementation": "xla"}], ids=["dense", "free", "name"]
)
def test_other_layers_have_products_of_their_own(widths, other):
    def outputs(x):
        layers = [layer(), layer(**other, seed=1)]
        return apply_group(x, layers), apply_gated(x, *layers)

    jax.eval_shape(outputs, jnp.ones((2, 16)))
    assert set(widths) == {24}


def test_layers_whose_gradient_is_scored_have_products_of_their_own(widths):
    def outputs(x):
        layers = [layer(seed=0), layer(seed=1)]
        layers[1].probe = GrowthProbe(jnp.zeros((4, 6)))
        return apply_group(x, layers)

    jax.eval_shape(outputs, jnp.ones((2, 16)))
    assert widths == [24, 24]


def test_the_model_makes_one_product_of_q_k_v_and_one_of_gate_and_up(
    widths, make_model, make_weights, builder, initial
):
    model = make_model(layers=1)
    weights = make_weights(model, density=0.5, shards=2)
    trees = initial(model, weights)
    loss, gradients = loss_and_gradients(builder(model, weights), *trees)
    build = builder(model, weights, implementations=dict.fromkeys(weights, "grouped"))
    grouped_loss, grouped_gradients = loss_and_gradients(build, *trees)
    # q, k, v; o; gate, up; down.
    assert widths[:4] == [32 + 16 + 16, 16, 24 + 24, 16] and set(widths) == {64, 48, 16}
    np.testing.assert_allclose(grouped_loss, loss, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grouped_gradients, gradients)


@pytest.mark.slow
def test_remat_dots_keeps_the_outputs_of_a_joint_product(widths, make_model, make_weights, builder, initial):
    def kept(remat: str) -> list[tuple[int, ...]]:
        model = make_model(remat=remat)
        weights = make_weights(model, density=0.5)
        build = builder(model, weights, implementations=dict.fromkeys(weights, "grouped"))
        graphdef, (params, topology) = abstract(build).graphdef, initial(model, weights)
        pull = jax.eval_shape(lambda p: jax.vjp(lambda p: merge(graphdef, p, topology)(TOKENS), p)[1], params)
        return [leaf.shape for leaf in jax.tree.leaves(pull)]

    # Layers, then the rows and positions of the outputs: gate and up are 24 wide each, q is 32.
    named = [(2, 2, 9, 32), (2, 18, 48)]
    dots, full = kept("dots"), kept("full")
    assert all(dots.count(shape) >= named.count(shape) for shape in named), dots
    assert not set(named) & set(full)
