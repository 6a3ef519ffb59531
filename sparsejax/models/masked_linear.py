"""A linear layer with N:M sparse weights taken from dense master weights in every step.

Axes: K input width, N output width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from sparsejax.models.layers import dense_product
from sparsejax.models.parallel import ALONE, Parallel
from sparsejax.models.sparse_linear import LINEAR_OUTPUT, TopologyIndex
from sparsejax.topology.nm import NmPattern, nm_mask


class FlowState(TopologyIndex):
    """A scalar that says how far an N:M pattern has come; set by ``flow.with_flow``, never by a gradient."""


class MaskedLinear(nnx.Module):
    """``y = x W~`` without bias, where ``W~`` is an N:M sparse reading of dense master weights ``W [K, N]``.

    With ``m`` the mask of ``topology.nm.nm_mask``::

        W~ = W * (m + beta * (1 - m))        dL/dW = dL/dW~

    ``beta`` is 0 but for a flow of the kind ``mask_*``. The gradient goes straight through the mask, so weights that
    are not used learn too and can come back (SR-STE, arXiv 2102.04010, equation 8; its second term, the pull of
    unused weights towards zero, is added to the gradient by ``optim.unused_decay``). Values, gradients and moments
    are as large as a dense layer's, and so is the product.

    Variables: ``kernel`` (``nnx.Param``, float32 ``[K, N]``); where the pattern comes by a flow also ``used`` (int32)
    and ``faded`` (float32), scalars that start as the plain dense layer.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pattern: NmPattern,
        *,
        compute_dtype: DTypeLike,
        std: float,
        init_key: jax.Array,
        cut_axis: int = 0,
        parallel: Parallel = ALONE,
    ) -> None:
        """Draw normal master weights.

        Args:
          shape: ``(K, N)``.
          pattern: which weights are used.
          compute_dtype: dtype of inputs, of the multiplied copy of the weights, and of outputs.
          std: standard deviation of the master weights; they are dense, so no density enters it.
          init_key: key of the values.
          cut_axis: axis of the master weights along which the devices of the fsdp axis store parts.
          parallel: the mesh inside which it is called.
        """
        self.cut_axis, self.parallel = cut_axis, parallel
        self.pattern = pattern
        self.compute_dtype = jnp.dtype(compute_dtype)
        self.kernel = nnx.Param(std * jax.random.normal(init_key, shape, jnp.float32))
        if pattern.flow != "none":
            self.used = FlowState(jnp.full((), pattern.group, jnp.int32))
            self.faded = FlowState(jnp.ones((), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """``x [..., K]`` of any float dtype to ``[..., N]`` in the compute dtype."""
        flows = self.pattern.flow != "none"
        used = self.used[...] if flows else self.pattern.used
        faded = self.faded[...] if flows else 0.0
        # The mask compares weights as they are stored, so they travel unrounded.
        kernel_KN = self.parallel.gather(self.kernel[...], self.cut_axis, jnp.float32)
        used_KN = masked_kernel(kernel_KN, used, faded, self.pattern.group)
        y = dense_product(x.astype(self.compute_dtype), used_KN.astype(self.compute_dtype))
        return checkpoint_name(y, LINEAR_OUTPUT)


def masked_kernel(kernel_KN: jax.Array, used: int | jax.Array, faded: float | jax.Array, group: int) -> jax.Array:
    """``W~ [K, N]`` of master weights: ``used`` of every ``group`` as they are, the others times ``faded``."""
    return straight_through(kernel_KN, jnp.where(nm_mask(kernel_KN, used, group), 1.0, faded))


@jax.custom_vjp
def straight_through(weight: jax.Array, factor: jax.Array) -> jax.Array:
    """``weight * factor``, whose gradient reaches ``weight`` as if the factor were 1."""
    return weight * factor


def _forward(weight: jax.Array, factor: jax.Array) -> tuple[jax.Array, None]:
    return weight * factor, None


def _backward(_: None, gradient: jax.Array) -> tuple[jax.Array, None]:
    return gradient, None


straight_through.defvjp(_forward, _backward)
