import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.models.masked_linear import FlowState, MaskedLinear
from sparsejax.topology.nm import NmPattern, nm_mask


def make(flow="none", dtype="float32", shape=(8, 6)):
    return MaskedLinear(shape, NmPattern(2, 4, flow), compute_dtype=dtype, std=0.5, init_key=jax.random.key(1))


X = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)


def test_output_is_the_product_with_the_masked_matrix():
    layer = make()
    kernel = layer.kernel[...]
    masked = np.where(nm_mask(kernel, 2, 4), kernel, 0.0)
    assert np.count_nonzero(masked) == 24
    np.testing.assert_allclose(layer(X), X @ masked, rtol=1e-5, atol=1e-6)


def test_the_gradient_goes_straight_through():
    # With y = x W~, dL/dW~ = x^T dL/dy, for used and unused weights alike.
    layer, output_gradient = make(), np.random.default_rng(1).normal(size=(2, 3, 6)).astype(np.float32)
    gradient = nnx.grad(lambda layer: jnp.sum(layer(X) * output_gradient))(layer)["kernel"][...]
    np.testing.assert_allclose(gradient, X.reshape(6, 8).T @ output_gradient.reshape(6, 6), rtol=1e-4, atol=1e-5)


def test_the_input_gradient_sees_used_weights_only():
    layer = make()
    gradient = jax.grad(lambda x: jnp.sum(layer(x)))(X)
    masked = np.where(nm_mask(layer.kernel[...], 2, 4), layer.kernel[...], 0.0)
    np.testing.assert_allclose(gradient, np.broadcast_to(masked.sum(1), X.shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("flow", ["mask_linear", "mask_exp", "structure"])
def test_a_flow_starts_as_the_dense_layer_and_ends_as_the_masked_one(flow):
    layer, kernel = make(flow), make().kernel[...]
    np.testing.assert_allclose(layer(X), X @ kernel, rtol=1e-5, atol=1e-6)
    layer.used[...], layer.faded[...] = jnp.int32(2), jnp.float32(0.25)
    partly = np.where(nm_mask(kernel, 2, 4), kernel, 0.25 * kernel)
    np.testing.assert_allclose(layer(X), X @ partly, rtol=1e-5, atol=1e-6)
    layer.faded[...] = jnp.float32(0.0)
    np.testing.assert_allclose(layer(X), make()(X), rtol=1e-6)


def test_variables_and_dtypes():
    def shapes(layer, kind):
        return {name: (leaf.shape, leaf.dtype) for name, leaf in nnx.to_pure_dict(nnx.state(layer, kind)).items()}

    plain, flowing = nnx.eval_shape(make), nnx.eval_shape(lambda: make("mask_exp", "bfloat16"))
    assert shapes(plain, nnx.Param) == shapes(flowing, nnx.Param) == {"kernel": ((8, 6), jnp.float32)}
    assert shapes(plain, FlowState) == {}
    assert shapes(flowing, FlowState) == {"used": ((), jnp.int32), "faded": ((), jnp.float32)}
    assert jax.eval_shape(lambda: make(dtype="bfloat16")(X)).dtype == jnp.bfloat16
