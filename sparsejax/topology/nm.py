"""N:M masks: of every M consecutive inputs of an output, the N weights that are largest in magnitude.

Axes: K inputs, N outputs of a weight; a group is M consecutive inputs of one output. To keep the letters apart, the
N and M of "N:M" are called ``used`` and ``group`` in code.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class NmPattern:
    """N:M sparsity of a weight whose dense master weights are stored.

    Attributes:
      used: N, weights used of every group, in [1, group].
      group: M, consecutive inputs of one output.
      flow: how the pattern comes during training, a choice of ``topology.flow``; ``"none"`` is at once.
    """

    used: int
    group: int
    flow: str


def nm_mask(weight_KN: jax.Array, used: int | jax.Array, group: int) -> jax.Array:
    """True for the ``used`` largest ``|w|`` of every ``group`` consecutive inputs of one output.

    A topology that is a pure function of the weights (Zhou et al., arXiv 2102.04010, section 3.1). The groups lie along
    the inputs, which a product sums over, as N:M hardware needs them. Magnitudes are compared as bit patterns, so
    every group has exactly ``used`` members whatever the values; ties go to the lower input.

    Args:
      weight_KN: ``[..., K, N]`` float32.
      used: N of N:M, in [0, group]; may be traced.
      group: M of N:M, a divisor of K.

    Returns:
      Bools of the same shape.

    Raises:
      ValueError: ``group`` does not divide K.
      TypeError: ``weight_KN`` is not float32.
    """
    (*layers, inputs, outputs) = weight_KN.shape
    if inputs % group:
        raise ValueError(f"group={group}: does not divide the {inputs} inputs")
    if weight_KN.dtype != jnp.float32:
        raise TypeError(f"nm_mask takes float32, not {weight_KN.dtype}")
    # Without its sign bit, a float32 read as an integer is ordered as its magnitude.
    size = jax.lax.bitcast_convert_type(weight_KN, jnp.int32) & 0x7FFFFFFF
    size = size.reshape(*layers, inputs // group, group, outputs)
    member = jnp.arange(group)[:, None]
    rank = jnp.zeros(size.shape, jnp.int32)
    # One comparison with each member in turn holds no array larger than the weight, unlike all pairs at once, and is
    # faster than sorting groups this short.
    for other in range(group):
        rival = size[..., other : other + 1, :]
        rank += ((rival > size) | ((rival == size) & (other < member))).astype(jnp.int32)
    return (rank < used).reshape(weight_KN.shape)
