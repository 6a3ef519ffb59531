"""The decoder with N:M and Monarch weights against the dense decoder with the same matrices written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.functional import abstract, merge
from sparsejax.topology.nm import nm_mask
from tests.models.monarch_test import written_out

TOKENS = jax.random.randint(jax.random.key(9), (2, 9), 0, 32)


def matrices(leaves):
    """The matrices [L, K, N] of one kind: 2:4 masks, or products of factors."""
    if "kernel" in leaves:
        return jnp.where(nm_mask(leaves["kernel"], 2, 4), leaves["kernel"], 0.0)
    pairs = zip(leaves["first"], leaves["second"], strict=True)
    return np.stack([written_out(first, second) for first, second in pairs])


def logits(build, params, topology):
    # Compiling is all the cost of so small a program; optimising it would only add to that.
    model = merge(abstract(build).graphdef, params, topology)
    return jax.jit(model, compiler_options={"xla_backend_optimization_level": 0})(TOKENS)


@pytest.mark.parametrize("storage, flow", [("dense_master", "none"), ("dense_master", "mask_exp"), ("monarch", "none")])
def test_logits_are_those_of_the_dense_decoder(make_model, make_weights, builder, initial, storage, flow):
    model = make_model()
    weights = make_weights(model, density=0.5, storage=storage, flow=flow)
    params, topology = initial(model, weights)
    written = params | {"layers": dict(params["layers"])}
    for room in ("attention", "mlp"):
        kinds = params["layers"][room].items()
        # A flow begins with all master weights.
        written["layers"][room] = {
            kind: leaves if flow != "none" else {"kernel": matrices(leaves)} for kind, leaves in kinds
        }
    expected = logits(builder(model, make_weights(model, density=1.0)), written, {})
    found = logits(builder(model, weights), params, topology)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.1
    assert ("layers" in topology) == (flow != "none")
