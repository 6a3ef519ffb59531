"""Dense products in Pallas, tuned by hand: what the block-sparse kernels are counted beside on a TPU.

Axes: T tokens, K and N the widths. A tile is ``(rows, columns, contracted)`` of one grid step.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

Tile = tuple[int, int, int]

# Tiles to try; the best one of each chip is the reference. 512 x 512 x 512 is the plain choice.
FORWARD_TILES: tuple[Tile, ...] = ((512, 512, 512), (1024, 512, 512), (512, 512, 2048), (1024, 512, 2048))
GRADIENT_TILES: tuple[Tile, ...] = ((512, 512, 512), (512, 512, 2048), (1024, 512, 1024), (512, 1024, 1024))


def dense_product(x_TK: jax.Array, w_KN: jax.Array, tile: Tile, *, vmem_bytes: int, name: str) -> jax.Array:
    """``X W``, ``[T, N]`` in the dtype of x, summed in float32."""
    (T, K), N, (rows, columns, contracted) = x_TK.shape, w_KN.shape[1], tile
    steps = K // contracted
    return pl.pallas_call(
        functools.partial(_product, steps=steps),
        grid=(T // rows, N // columns, steps),
        in_specs=[
            pl.BlockSpec((rows, contracted), lambda i, j, k: (i, k)),
            pl.BlockSpec((contracted, columns), lambda i, j, k: (k, j)),
        ],
        out_specs=pl.BlockSpec((rows, columns), lambda i, j, k: (i, j)),
        out_shape=jax.ShapeDtypeStruct((T, N), x_TK.dtype),
        scratch_shapes=[pltpu.VMEM((rows, columns), jnp.float32)],
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=vmem_bytes),
        name=name,
    )(x_TK, w_KN)


def _product(x_ref: jax.Ref, w_ref: jax.Ref, y_ref: jax.Ref, sum_ref: jax.Ref, *, steps: int) -> None:
    product = jnp.dot(x_ref[...], w_ref[...], preferred_element_type=jnp.float32)
    if steps == 1:
        y_ref[...] = product.astype(y_ref.dtype)
        return

    @pl.when(pl.program_id(2) == 0)
    def _start_from_zero() -> None:
        sum_ref[...] = jnp.zeros_like(sum_ref)

    sum_ref[...] += product

    @pl.when(pl.program_id(2) == steps - 1)
    def _write() -> None:
        y_ref[...] = sum_ref[...].astype(y_ref.dtype)


def dense_gradient(x_TK: jax.Array, gy_TN: jax.Array, tile: Tile, *, vmem_bytes: int, name: str) -> jax.Array:
    """``X^T gY``, ``[K, N]`` float32."""
    (T, K), N, (rows, columns, contracted) = x_TK.shape, gy_TN.shape[1], tile
    return pl.pallas_call(
        _gradient,
        grid=(K // rows, N // columns, T // contracted),
        in_specs=[
            pl.BlockSpec((contracted, rows), lambda i, j, k: (k, i)),
            pl.BlockSpec((contracted, columns), lambda i, j, k: (k, j)),
        ],
        out_specs=pl.BlockSpec((rows, columns), lambda i, j, k: (i, j)),
        out_shape=jax.ShapeDtypeStruct((K, N), jnp.float32),
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=vmem_bytes),
        name=name,
    )(x_TK, gy_TN)


def _gradient(x_ref: jax.Ref, gy_ref: jax.Ref, g_ref: jax.Ref) -> None:
    @pl.when(pl.program_id(2) == 0)
    def _start_from_zero() -> None:
        g_ref[...] = jnp.zeros_like(g_ref)

    contract_tokens = (((0,), (0,)), ((), ()))
    g_ref[...] += lax.dot_general(x_ref[...], gy_ref[...], contract_tokens, preferred_element_type=jnp.float32)
