import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.optim.unused_decay import add_unused_decay
from sparsejax.topology.nm import NmPattern


def test_weights_outside_the_mask_are_pulled_towards_zero():
    # 2:4 of each column uses the two largest: -3 and 2, then 4 and -5.
    weight = jnp.array([[[0.5, 1.0], [-3.0, 4.0], [2.0, -5.0], [-1.0, 0.0]]])
    params = {"kernel": weight, "dense": weight}
    gradient = jax.tree.map(lambda leaf: jnp.full_like(leaf, 7.0), params)
    decay = add_unused_decay(0.1, NmPattern(2, 4, "none"), {"kernel": True, "dense": False})
    after, _ = decay.update(gradient, decay.init(params), params)
    pull = np.array([[[0.05, 0.1], [0.0, 0.0], [0.0, 0.0], [-0.1, 0.0]]])
    np.testing.assert_allclose(after["kernel"], 7.0 + pull, rtol=1e-6)
    np.testing.assert_array_equal(after["dense"], gradient["dense"])
    with pytest.raises(ValueError, match="needs the parameters"):
        decay.update(gradient, decay.init(params))
