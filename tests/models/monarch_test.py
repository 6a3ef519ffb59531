import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.models.monarch import MonarchLinear
from sparsejax.models.monarch_shape import MonarchShape

FACTORS = MonarchShape(2, 4)


def make(shape=(8, 12), factors=FACTORS, dtype="float32", std=0.5):
    return MonarchLinear(shape, factors, compute_dtype=dtype, std=std, init_key=jax.random.key(1))


def written_out(first, second):
    """The dense matrix [K, N]: block-diagonal, permutation, block-diagonal."""
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
    dense = written_out(layer.first[...], layer.second[...])
    np.testing.assert_allclose(layer(x), x @ dense, rtol=1e-4, atol=1e-5)
    # Every input reaches every output.
    assert np.all(dense != 0.0)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param))) == factors.parameters(shape)


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
