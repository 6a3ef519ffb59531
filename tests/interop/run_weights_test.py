"""Every storage as the dense matrix that its layer multiplies by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.interop.run_weights import RunWeights
from sparsejax.models.masked_linear import MaskedLinear
from sparsejax.models.monarch import MonarchLinear
from sparsejax.models.monarch_shape import MonarchShape
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology.blocks import BlockGrid, from_dense, index_from_mask, to_dense
from sparsejax.topology.nm import NmPattern

SHAPE = (8, 12)
UP = "model.layers.1.mlp.up_proj.weight"


def run_weights(weight: SparseWeight, params: dict, topology: dict) -> RunWeights:
    """Two layers of a model that has nothing but ``mlp.up``; the other kinds are full."""
    full = SparseWeight("", BlockGrid((4, 4), (1, 1)), 16, 16)
    others = {f"attention.{name}": full for name in "qkvo"} | {"mlp.gate": full, "mlp.down": full}
    kernel = {"kernel": np.zeros((2, 4, 4), np.float32)}
    rooms = {"attention": dict.fromkeys("qkvo", kernel), "mlp": {"gate": kernel, "down": kernel, "up": params}}
    return RunWeights({"layers": rooms}, {"layers": {"mlp": {"up": topology}}}, {**others, "mlp.up": weight}, 2)


def stacked(arrays: dict) -> dict:
    """The arrays as layer 1 of two."""
    return {name: np.stack([np.zeros_like(array), np.asarray(array)]) for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("block", "shards", "axis"),
    [((2, 3), 2, "columns"), ((4, 2), 2, "rows"), ((1, 1), 1, "columns")],
)
def test_blocks_with_free_slots(block: tuple[int, int], shards: int, axis: str) -> None:
    grid = BlockGrid(SHAPE, block, shards, axis)
    mask = np.random.default_rng(0).random((grid.rows, grid.columns)) < 0.4
    capacity = grid.cells
    dense = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    weight = from_dense(jnp.asarray(dense), index_from_mask(mask, grid, capacity), grid)
    index = {name: array for name, array in vars(weight.index).items()}
    found = run_weights(
        SparseWeight("mlp.up", grid, int(mask.sum()), capacity), stacked({"values": weight.values}), stacked(index)
    )
    np.testing.assert_array_equal(found.tensor(UP), np.asarray(to_dense(weight)).T)
    np.testing.assert_array_equal(found.masks()[UP], mask.T)
    assert set(found.masks()) == {UP, UP.replace("1", "0")}
    assert not np.signbit(found.tensor(UP)[found.tensor(UP) == 0]).any()


@pytest.mark.parametrize("flow", ["none", "mask_linear"])
def test_n_of_m(flow: str) -> None:
    pattern = NmPattern(1, 4, flow)
    layer = MaskedLinear(SHAPE, pattern, compute_dtype=jnp.float32, std=1.0, init_key=jax.random.key(0))
    topology = {}
    if flow != "none":
        layer.used[...], layer.faded[...] = jnp.int32(2), jnp.float32(0.25)
        topology = stacked({"used": layer.used[...], "faded": layer.faded[...]})
    grid = BlockGrid(SHAPE, (1, 1))
    found = run_weights(
        SparseWeight("mlp.up", grid, 24, 96, structure=pattern), stacked({"kernel": layer.kernel[...]}), topology
    )
    multiplied = np.asarray(layer(jnp.eye(SHAPE[0])))
    np.testing.assert_array_equal(found.tensor(UP), multiplied.T)
    if flow == "none":
        np.testing.assert_array_equal(found.masks()[UP], multiplied.T != 0)
        assert found.masks()[UP].sum() == 24
        assert not np.signbit(found.tensor(UP)[~found.masks()[UP]]).any()
    else:
        # Weights that still fade are weights: the matrix is full.
        assert UP not in found.masks() and (found.tensor(UP) != 0).all()


def test_monarch_factors() -> None:
    factors = MonarchShape(blocks=4, inner=8)
    layer = MonarchLinear(SHAPE, factors, compute_dtype=jnp.float32, std=1.0, init_key=jax.random.key(0))
    weight = SparseWeight("mlp.up", BlockGrid(SHAPE, (1, 1)), 96, 96, structure=factors)
    found = run_weights(weight, stacked({"first": layer.first[...], "second": layer.second[...]}), {})
    np.testing.assert_allclose(found.tensor(UP), np.asarray(layer(jnp.eye(SHAPE[0]))).T, rtol=0, atol=1e-6)
    assert found.masks() == {}
