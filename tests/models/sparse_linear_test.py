import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.models.sparse_linear import SparseLinear, TopologyIndex, initial_std, initial_values
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology.blocks import BlockGrid, gather_blocks, to_dense, validate
from sparsejax.topology.initial import random_index


def make(block=(4, 4), count=6, capacity=6, shape=(16, 24), dtype="float32", seed=0):
    weight = SparseWeight(name="linear", grid=BlockGrid(shape=shape, block=block), count=count, capacity=capacity)
    keys = jax.random.split(jax.random.key(seed))
    return SparseLinear(
        weight,
        implementation="transient",
        compute_dtype=dtype,
        std=0.5,
        init_key=keys[0],
        topology_key=keys[1],
    )


@pytest.mark.parametrize("block, count", [((4, 4), 6), ((1, 1), 90), ((1, 4), 20), ((8, 4), 3)])
def test_output_is_the_product_with_the_dense_matrix(block, count):
    def outputs(x):
        layer = make(block=block, count=count, capacity=count)
        return layer(x), x @ to_dense(layer.weight)

    x = np.random.default_rng(0).normal(size=(2, 3, 16)).astype(np.float32)
    actual, expected = jax.jit(outputs, compiler_options={"xla_backend_optimization_level": 0})(x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected).max() > 0.5


def test_variables_of_blocks_elements_and_dense():
    def variables(layer, kind):
        return {k: v.shape for k, v in nnx.to_pure_dict(nnx.state(layer, kind)).items()}

    blocks = nnx.eval_shape(make)
    assert variables(blocks, nnx.Param) == {"values": (6, 4, 4)}
    assert variables(blocks, TopologyIndex) == {
        "rows": (6,),
        "cols": (6,),
        "column_pointers": (1, 7),
        "row_pointers": (1, 5),
        "row_order": (1, 6),
    }
    elements = nnx.eval_shape(lambda: make(block=(1, 1), count=90, capacity=90))
    assert variables(elements, TopologyIndex) == {"flat": (90,)}
    dense = nnx.eval_shape(lambda: make(count=24, capacity=24))
    assert variables(dense, nnx.Param) == {"kernel": (16, 24)}
    assert variables(dense, TopologyIndex) == {}


def test_free_slots_start_at_zero():
    layer = make(count=4, capacity=6)
    validate(layer.weight)
    np.testing.assert_array_equal(layer.values[...][4:], 0.0)
    assert np.all(np.asarray(layer.values[...][:4]) != 0.0)


def test_a_block_starts_from_the_same_draw_in_every_topology():
    grid = BlockGrid(shape=(16, 24), block=(4, 4))
    key = jax.random.key(3)
    few = random_index(jax.random.key(0), grid, 6, 6)
    every = random_index(jax.random.key(1), grid, 24, 24)
    everywhere = initial_values(key, every, grid, 0.5)
    dense = to_dense(dataclasses.replace(make().weight, values=everywhere, index=every))
    np.testing.assert_array_equal(initial_values(key, few, grid, 0.5), gather_blocks(dense, few, grid))


def test_density_aware_values_keep_the_variance_of_dense_outputs():
    def output_variance(init, density):
        grid = BlockGrid(shape=(512, 256), block=(8, 8))
        count = round(density * grid.cells)
        layer = SparseLinear(
            SparseWeight(name="linear", grid=grid, count=count, capacity=count),
            implementation="transient",
            compute_dtype="float32",
            std=initial_std(init, 0.02, density),
            init_key=jax.random.key(0),
            topology_key=jax.random.key(1),
        )
        return np.var(layer(jax.random.normal(jax.random.key(2), (64, 512))))

    dense = 512 * 0.02**2
    assert output_variance("density_aware", 1.0) == pytest.approx(dense, rel=0.05)
    assert output_variance("density_aware", 0.25) == pytest.approx(dense, rel=0.05)
    assert output_variance("normal", 0.25) == pytest.approx(dense / 4, rel=0.05)


def test_compute_dtype_is_that_of_the_output_and_parameters_stay_float32():
    for count in (6, 24):

        def forward(count=count):
            layer = make(count=count, capacity=count, dtype="bfloat16")
            return layer(jnp.ones((2, 16))), nnx.to_pure_dict(nnx.state(layer, nnx.Param))

        output, params = jax.eval_shape(forward)
        assert output.dtype == jnp.bfloat16
        assert [leaf.dtype for leaf in params.values()] == [jnp.float32]


def test_layer_in_somebodys_own_model():
    class Mlp(nnx.Module):
        def __init__(self, rngs):
            self.up = SparseLinear.create(16, 32, density=0.25, block=(4, 4), rngs=rngs)
            self.down = nnx.Linear(32, 16, rngs=rngs)

        def __call__(self, x):
            return self.down(nnx.relu(self.up(x)))

    model = Mlp(nnx.Rngs(0))
    gradients = nnx.jit(nnx.grad(lambda m: jnp.sum(m(jnp.ones((2, 16))) ** 2)))(model)
    up = nnx.to_pure_dict(gradients)["up"]
    assert {name: leaf.shape for name, leaf in up.items()} == {"values": (8, 4, 4)}
    assert np.any(np.asarray(up["values"]) != 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *[({"density": density}, "density=.*: must be in") for density in (25, 1.5, 0.0, -1.0, float("nan"))],
        ({"density": "0.5"}, "density='0.5': must be of type float, not str"),
        *[({"std": std}, "std=.*: must be in") for std in (0.0, -0.02, float("nan"), float("inf"))],
        ({"block": (5, 4)}, r"block=\(5, 4\): 5 does not divide"),
        ({"block": 4}, "block=4: must be two whole numbers of at least 1"),
        ({"block": (0, 4)}, "block=.*: must be two whole numbers of at least 1"),
        ({"out_features": 0}, r"shape=\(16, 0\): must be two whole numbers of at least 1"),
        ({"compute_dtype": "int8"}, "compute_dtype=int8: must be floating point"),
        ({"implementation": "auto"}, "implementation='auto': unknown"),
        ({"implementation": "pallas_tpu@v5e"}, "implementation='pallas_tpu@v5e' does not support 16x32 in blocks of"),
    ],
)
def test_arguments_that_cannot_be_are_one_line(changes, message):
    arguments = {"in_features": 16, "out_features": 32, "density": 0.5, "block": (4, 4), "rngs": nnx.Rngs(0), **changes}
    with pytest.raises(ValueError, match=f"^{message}"):
        SparseLinear.create(arguments.pop("in_features"), arguments.pop("out_features"), **arguments)
