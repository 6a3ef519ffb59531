import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.models.layers import (
    RMSNorm,
    rope_frequencies,
    rotate,
    rotation_of,
)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def test_rms_norm_worked_example_and_float32_inside():
    norm = RMSNorm(2, eps=1e-6)
    # mean square of (3, 4) is 12.5
    np.testing.assert_allclose(norm(jnp.array([3.0, 4.0])), np.array([3.0, 4.0]) / math.sqrt(12.5), rtol=1e-6)
    # A bfloat16 input is rounded once, at the end: squares and the inverse root in bfloat16 would each round too.
    x = normal(0, 64).astype(jnp.bfloat16)
    wide = np.asarray(x, np.float64)
    expected = jnp.asarray(wide / np.sqrt(np.mean(wide**2) + 1e-6), jnp.bfloat16)
    np.testing.assert_array_equal(RMSNorm(64, eps=1e-6)(x), expected)


def test_rotation_pairs_halves_and_keeps_position_zero(make_model):
    frequencies = rope_frequencies(make_model(head_dim=4))
    np.testing.assert_allclose(frequencies, [1.0, 0.01], rtol=1e-6)
    x = jnp.array([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 1, 4)
    unmoved = rotate(x, rotation_of(jnp.array([0]), frequencies))
    np.testing.assert_array_equal(unmoved, x)
    # Position 2: the pair (0, 2) turns by 2 radians, the pair (1, 3) by 0.02.
    turned = rotate(x, rotation_of(jnp.array([2]), frequencies)).reshape(4)
    expected = [math.cos(2.0), -math.sin(0.02), math.sin(2.0), math.cos(0.02)]
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_rotated_products_depend_on_distance_only(make_model):
    frequencies = rope_frequencies(make_model())
    q, k = normal(0, 1, 1, 1, 8), normal(1, 1, 1, 1, 8)

    def product(i, j):
        moved_q = rotate(q, rotation_of(jnp.array([i]), frequencies))
        moved_k = rotate(k, rotation_of(jnp.array([j]), frequencies))
        return jnp.sum(moved_q * moved_k)

    np.testing.assert_allclose(product(9, 4), product(25, 20), rtol=1e-5)
    assert abs(product(9, 4) - product(9, 5)) > 1e-3


def llama31_frequencies(base, head_dim, factor, low, high, original):
    # As Meta's LLaMA 3.1 writes it, by wavelength and one pair at a time.
    out = []
    for i in range(0, head_dim, 2):
        frequency = base ** (-i / head_dim)
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high:
            out.append(frequency)
        elif wavelength > original / low:
            out.append(frequency / factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            out.append((1 - smooth) * frequency / factor + smooth * frequency)
    return out


def test_rope_scaling_of_llama_31(make_model):
    model = make_model(head_dim=128, rope_base=5e5, rope_scaling="llama3", rope_factor=8.0, rope_original_length=8192)
    expected = llama31_frequencies(5e5, 128, 8.0, 1.0, 4.0, 8192)
    plain = rope_frequencies(make_model(head_dim=128, rope_base=5e5))
    scaled = rope_frequencies(model)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5)
    ratio = np.asarray(scaled / plain)
    assert ratio[0] == 1.0 and ratio[-1] == 0.125 and np.any((ratio > 0.13) & (ratio < 0.99))


def test_linear_rope_scaling_and_its_errors(make_model):
    plain = rope_frequencies(make_model())
    np.testing.assert_array_equal(rope_frequencies(make_model(rope_scaling="linear", rope_factor=4.0)), plain / 4)
    with pytest.raises(ConfigError, match="must be above"):
        rope_frequencies(make_model(rope_scaling="llama3", rope_high_frequency=1.0))
