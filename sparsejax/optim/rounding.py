"""Stochastic rounding of float32 to bfloat16, for moments that must keep moving in half the memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def stochastic_round(x: jax.Array, key: jax.Array) -> jax.Array:
    """Round to one of the two bfloat16 neighbours of ``x``, so that the expected result is ``x``.

    A bfloat16 is the upper half of a float32. Adding a uniform 16-bit integer to the bit pattern and cutting the
    lower half off carries into the upper half with probability ``lower / 2**16``, which is how far ``x`` lies
    between its neighbours. Values that bfloat16 holds exactly stay exact, zero included; infinities and NaN pass
    through, and a finite value never becomes infinite (above the largest bfloat16 it rounds towards zero).

    Rounding to nearest loses every change below half a unit in the last place: an average with decay 0.999 of a
    constant 1 stops at 0.5 when every operation is rounded to bfloat16, as in the code published with
    arXiv 2606.00888.

    Args:
      x: any shape, float32.
      key: a random key; equal keys give equal results.

    Returns:
      ``x`` rounded, bfloat16.

    Raises:
      TypeError: ``x`` is not float32.
    """
    if x.dtype != jnp.float32:
        raise TypeError(f"stochastic_round takes float32, not {x.dtype}")
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    upper = ((bits + noise) >> 16).astype(jnp.uint16)
    rounded = jax.lax.bitcast_convert_type(upper, jnp.bfloat16)
    truncated = jax.lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)
    rounded = jnp.where(jnp.isfinite(rounded), rounded, truncated)
    return jnp.where(jnp.isfinite(x), rounded, x.astype(jnp.bfloat16))
