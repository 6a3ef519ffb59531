"""Monarch: a matrix as two block-diagonal factors with a fixed permutation between (Dao et al., arXiv 2204.00595).

Axes: K input width, N output width, b blocks of each factor, i inner width of a block, T tokens.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from sparsejax.models.monarch_shape import MonarchShape
from sparsejax.models.sparse_linear import LINEAR_OUTPUT


class MonarchLinear(nnx.Module):
    """``y = x W`` without bias, where ``W [K, N]`` is a Monarch matrix: two batched products, no index, no kernel.

    The input is cut into b blocks, each is multiplied by its own ``[K / b, i]``, the result ``[b, i]`` is transposed
    and cut into b blocks again, and each of these is multiplied by its own ``[i, N / b]``::

        z[k, p] = sum_j x[k, j] first[k, j, p]        u = transpose(z).reshape(b, i)
        y[l, q] = sum_p u[l, p] second[l, p, q]

    Variables (``nnx.Param``, float32): ``first [b, K / b, i]`` and ``second [b, i, N / b]``.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        factors: MonarchShape,
        *,
        compute_dtype: DTypeLike,
        std: float,
        init_key: jax.Array,
    ) -> None:
        """Draw normal factors, both with the standard deviation ``(std^2 b / i)^(1/4)``.

        An output is a sum of ``K i / b`` products of one input and two factors, so its variance is that of a dense
        layer with the standard deviation ``std``, ``K std^2 var(x)``.

        Args:
          shape: ``(K, N)``.
          factors: number and inner width of the blocks.
          compute_dtype: dtype of inputs, of the multiplied copies of the factors, and of outputs.
          std: standard deviation of the elements of the dense matrix to equal.
          init_key: key of the values.
        """
        (inputs, outputs), blocks, inner = shape, factors.blocks, factors.inner
        self.factors = factors
        self.compute_dtype = jnp.dtype(compute_dtype)
        keys, scale = jax.random.split(init_key), math.sqrt(std * math.sqrt(blocks / inner))
        self.first = nnx.Param(scale * jax.random.normal(keys[0], (blocks, inputs // blocks, inner), jnp.float32))
        self.second = nnx.Param(scale * jax.random.normal(keys[1], (blocks, inner, outputs // blocks), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """``x [..., K]`` of any float dtype to ``[..., N]`` in the compute dtype."""
        first, second = (factor[...].astype(self.compute_dtype) for factor in (self.first, self.second))
        blocks = self.factors.blocks
        x_Tbj = x.astype(self.compute_dtype).reshape(-1, blocks, x.shape[-1] // blocks)
        z_Tbi = checkpoint_name(jnp.einsum("Tbj,bji->Tbi", x_Tbj, first), LINEAR_OUTPUT)
        u_Tbi = jnp.swapaxes(z_Tbi, 1, 2).reshape(z_Tbi.shape)
        y_Tbq = checkpoint_name(jnp.einsum("Tbi,biq->Tbq", u_Tbi, second), LINEAR_OUTPUT)
        return y_Tbq.reshape(*x.shape[:-1], -1)
