"""The dense pieces of a LLaMA decoder layer (arXiv 2302.13971, section 2.2).

Axes: B batch, T sequence, D hidden, N heads, H head width.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax.config import ConfigError, ModelConfig


def dense_product(x: jax.Array, kernel_KN: jax.Array) -> jax.Array:
    """``x [..., K]`` times ``[K, N]`` over one token axis: products that contract over several are slow on a CPU."""
    with jax.named_scope("dense_matmul"):
        return (x.reshape(-1, x.shape[-1]) @ kernel_KN).reshape(*x.shape[:-1], kernel_KN.shape[-1])


class RMSNorm(nnx.Module):
    """``y = x / sqrt(mean(x^2) + eps) * scale`` over the last axis (Zhang and Sennrich, arXiv 1910.07467).

    Computed in float32 whatever the input; the output has the input's dtype.
    """

    def __init__(self, width: int, eps: float) -> None:
        """Scale starts at 1; ``eps`` is added to the mean square."""
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.eps = eps

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """Normalise the last axis."""
        wide_BTD = x_BTD.astype(jnp.float32)
        inverse_BT1 = jax.lax.rsqrt(jnp.mean(wide_BTD * wide_BTD, axis=-1, keepdims=True) + self.eps)
        return (wide_BTD * inverse_BT1 * self.scale[...]).astype(x_BTD.dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rotation:
    """Cosines and sines of the rotary angles of every position, ``[T, H / 2]`` float32.

    Where every row of a batch has positions of its own, ``[B, T, H / 2]``.
    """

    cos_TH: jax.Array
    sin_TH: jax.Array


def rope_frequencies(model: ModelConfig) -> jax.Array:
    """Radians per position of each rotary pair, ``[head_dim / 2]`` float32.

    ``f_i = base^(-2 i / head_dim)`` (Su et al., arXiv 2104.09864), then by ``rope_scaling``:

    - ``none``: as is.
    - ``linear``: ``f / factor``; positions are squeezed (Chen et al., arXiv 2306.15595).
    - ``llama3``: LLaMA 3.1. With ``r = original_length * f / (2 pi)`` turns over the original context, pairs with
      ``r > high`` keep ``f``, pairs with ``r < low`` get ``f / factor``, and between them
      ``((1 - s) / factor + s) * f`` with ``s = (r - low) / (high - low)``.

    Raises:
      ConfigError: ``llama3`` with ``rope_high_frequency`` not above ``rope_low_frequency``.
    """
    exponent = jnp.arange(0, model.head_dim, 2, dtype=jnp.float32) / model.head_dim
    frequency = jnp.asarray(model.rope_base, jnp.float32) ** -exponent
    if model.rope_scaling == "none":
        return frequency
    if model.rope_scaling == "linear":
        return frequency / model.rope_factor
    if model.rope_scaling != "llama3":
        raise ConfigError(f"model.rope_scaling={model.rope_scaling}: must be none, linear or llama3")
    low, high = model.rope_low_frequency, model.rope_high_frequency
    if high <= low:
        raise ConfigError(f"model.rope_high_frequency={high:g}: must be above model.rope_low_frequency={low:g}")
    turns = model.rope_original_length * frequency / (2 * math.pi)
    smooth = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return ((1 - smooth) / model.rope_factor + smooth) * frequency


def rotation_of(positions_T: jax.Array, frequencies: jax.Array) -> Rotation:
    """Angles ``position * frequency`` of the given integer positions; ``frequencies`` as ``rope_frequencies``.

    ``[T]`` positions are those of every row, ``[B, T]`` gives each row its own.
    """
    angle_TH = positions_T.astype(jnp.float32)[..., None] * frequencies
    return Rotation(cos_TH=jnp.cos(angle_TH), sin_TH=jnp.sin(angle_TH))


def rotate(x_BTNH: jax.Array, rotation: Rotation) -> jax.Array:
    """Rotate pairs ``(i, i + H / 2)`` of every head, in float32; the output has the input's dtype.

    Pairing halves (not neighbours) is the layout of Hugging Face LLaMA checkpoints.
    """
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    cos, sin = rotation.cos_TH[..., None, :], rotation.sin_TH[..., None, :]
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BTNH.dtype)
