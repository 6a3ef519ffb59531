"""Random keys of the topology: a pure function of (seed, step, weight, layer, share), design decision D5.

Nothing here depends on the mesh or on the order in which weights are visited, so equal seeds give equal
topologies on any number of devices and after any resume.
"""

from __future__ import annotations

import zlib

import jax
import numpy as np


def seed_argument(seed: int) -> np.ndarray:
    """A seed as an argument of a compiled program, uint32; gives the keys that the integer itself would give."""
    return np.asarray(seed & 0xFFFFFFFF, np.uint32)


def weight_key(seed: int | jax.Array, step: int | jax.Array, name: str, layer: int | jax.Array) -> jax.Array:
    """Key of one weight of one layer at one step; ``name`` is its kind, for example ``"attention.q"``."""
    key = jax.random.key(seed, impl="threefry2x32")
    key = jax.random.fold_in(key, step)
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return jax.random.fold_in(key, layer)


def share_key(key: jax.Array, share: int | jax.Array) -> jax.Array:
    """Key of one share of a weight."""
    return jax.random.fold_in(key, share)
