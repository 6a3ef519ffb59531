"""The activation of a SwiGLU layer (Shazeer, arXiv 2002.05202) and its gradients, from g and u alone.

With ``s = sigmoid(g)``, in float32 or wider whatever the operands are:

    h = g s u        dg = dh u s (1 + g (1 - s))        du = dh g s
"""

from __future__ import annotations

import jax

from sparsejax.kernels.implementation import accumulation_dtype


@jax.custom_vjp
def swiglu(gate: jax.Array, up: jax.Array) -> jax.Array:
    """``silu(gate) * up`` in their dtype; gate and up are all that is kept for the backward pass."""
    wide = accumulation_dtype(gate.dtype)
    return (jax.nn.silu(gate.astype(wide)) * up.astype(wide)).astype(gate.dtype)


def gate_gradient(gate: jax.Array, up: jax.Array, gh: jax.Array) -> jax.Array:
    """``dh u s (1 + g (1 - s))`` in gh's dtype."""
    wide = accumulation_dtype(gh.dtype)
    g, s = gate.astype(wide), jax.nn.sigmoid(gate.astype(wide))
    return (gh.astype(wide) * up.astype(wide) * s * (1 + g * (1 - s))).astype(gh.dtype)


def up_gradient(gate: jax.Array, gh: jax.Array) -> jax.Array:
    """``dh g s`` in gh's dtype."""
    wide = accumulation_dtype(gh.dtype)
    return (gh.astype(wide) * jax.nn.silu(gate.astype(wide))).astype(gh.dtype)


def _forward(gate: jax.Array, up: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return swiglu(gate, up), (gate, up)


def _backward(residuals: tuple[jax.Array, jax.Array], gh: jax.Array) -> tuple[jax.Array, jax.Array]:
    gate, up = residuals
    return gate_gradient(gate, up, gh), up_gradient(gate, gh)


swiglu.defvjp(_forward, _backward)
