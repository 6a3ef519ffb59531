import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.models.monarch import MonarchLinear, MonarchShape, nearest_shape

FACTORS = MonarchShape(2, 4)


def make(shape=(8, 12), factors=FACTORS, dtype="float32", std=0.5):
    return MonarchLinear(shape, factors, compute_dtype=dtype, std=std, init_key=jax.random.key(1))


def explicit(layer):
    """The dense matrix [K, N]: block-diagonal, permutation, block-diagonal, each written out."""
    first, second = np.asarray(layer.first[...]), np.asarray(layer.second[...])
    (blocks, rows, inner), columns = first.shape, second.shape[2]
    left, right = np.zeros((blocks * rows, blocks * inner)), np.zeros((blocks * inner, blocks * columns))
    for k in range(blocks):
        left[k * rows : (k + 1) * rows, k * inner : (k + 1) * inner] = first[k]
        right[k * inner : (k + 1) * inner, k * columns : (k + 1) * columns] = second[k]
    permutation = np.zeros((blocks * inner, blocks * inner))
    for k in range(blocks):
        for p in range(inner):
            permutation[k * inner + p, p * blocks + k] = 1.0
    return left @ permutation @ right


@pytest.mark.parametrize(
    "shape, factors",
    [
        ((8, 12), MonarchShape(2, 4)),
        ((12, 8), MonarchShape(4, 4)),
        ((16, 16), MonarchShape(4, 8)),
        ((6, 4), MonarchShape(1, 3)),
    ],
)
def test_layer_equals_its_explicit_dense_matrix(shape, factors):
    layer = make(shape, factors)
    x = np.random.default_rng(0).normal(size=(2, 3, shape[0])).astype(np.float32)
    dense = explicit(layer)
    np.testing.assert_allclose(layer(x), x @ dense, rtol=1e-4, atol=1e-5)
    # Every input reaches every output.
    assert np.all(dense != 0.0)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param))) == factors.parameters(shape)


def test_shapes_of_worked_examples():
    # Square, as in the paper: 2 / b of the parameters, and the width between the factors is that of the matrix.
    assert nearest_shape((256, 256), 0.5) == MonarchShape(blocks=4, inner=64)
    assert nearest_shape((256, 256), 0.25) == MonarchShape(blocks=8, inner=32)
    # sqrt(n) blocks are the sparsest that keep it; below, the width shrinks.
    assert nearest_shape((256, 256), 0.125) == MonarchShape(blocks=16, inner=16)
    assert nearest_shape((256, 256), 0.0625) == MonarchShape(blocks=8, inner=8)
    # Rectangular: 0.25 * 256 * 688 / 944 = 46.6, nearest multiple of 4.
    assert nearest_shape((256, 688), 0.25) == MonarchShape(blocks=4, inner=48)
    # Nothing in common but 1: a product of two dense factors.
    assert nearest_shape((15, 8), 0.5) == MonarchShape(blocks=1, inner=3)


@pytest.mark.parametrize("shape", [(256, 688), (512, 512), (512, 1376), (768, 2048), (2048, 5472), (5472, 2048)])
@pytest.mark.parametrize("density", [0.5, 0.25, 0.125, 0.0625])
def test_realised_density_is_near_and_the_factors_fit(shape, density):
    factors = nearest_shape(shape, density)
    assert factors.parameters(shape) / (shape[0] * shape[1]) == pytest.approx(density, rel=0.05)
    assert shape[0] % factors.blocks == shape[1] % factors.blocks == factors.inner % factors.blocks == 0


@pytest.mark.parametrize("factors", [MonarchShape(4, 64), MonarchShape(8, 8)])
def test_outputs_have_the_variance_of_a_dense_layer(factors):
    layer = make((256, 512), factors, std=0.02)
    variance = np.var(layer(jax.random.normal(jax.random.key(2), (128, 256))))
    assert variance == pytest.approx(256 * 0.02**2, rel=0.1)
    first, second = (float(jnp.std(factor[...])) for factor in (layer.first, layer.second))
    assert first == pytest.approx(second, rel=0.05)


def test_compute_dtype_is_that_of_the_output_and_parameters_stay_float32():
    def forward():
        layer = make(dtype="bfloat16")
        return layer(jnp.ones((2, 8))), nnx.to_pure_dict(nnx.state(layer, nnx.Param))

    output, params = jax.eval_shape(forward)
    assert output.dtype == jnp.bfloat16 and output.shape == (2, 12)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in params.items()} == {
        "first": ((2, 4, 4), jnp.float32),
        "second": ((2, 4, 6), jnp.float32),
    }
