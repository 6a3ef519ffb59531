"""Causal attention: the kernel of each platform, chosen on the host, behind one call.

Nothing is computed here: the products and the softmax are those of JAX.

- ``xla``: ``jax.nn.dot_product_attention`` in plain XLA. Everywhere; keeps the scores ``[B, N, T, T]``.
- ``splash``: the Pallas kernel that JAX ships for TPU. Neither pass stores scores, and tiles above the diagonal are
  never visited.
- ``cudnn``: the fused attention of cuDNN, through ``jax.nn``. A program with it can be traced only where JAX's CUDA
  wheels are installed.

Axes: B batch, T sequence, N query heads, M key and value heads, H head width.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.typing import DTypeLike

from sparsejax.config import ConfigError
from sparsejax.hardware.target import Target

IMPLEMENTATIONS = ("xla", "splash", "cudnn")

# Platform -> what ``auto`` takes there if it can.
_FUSED = {"tpu": "splash", "gpu": "cudnn"}

# Sides of the square score tiles of splash, the largest that divides the sequence is taken. The smallest is the
# width of a vector register, which the kernel cannot go below. The largest fits the 16 MiB of v4 at a head width of
# 256, in both passes.
_TILES = (512, 256, 128)

# Of cuDNN, and JAX checks them again. Hopper takes heads of 256 too; so wide a head is left to ``xla``, for the table
# of chips does not say the compute capability.
_CUDNN_HEAD_STEP, _CUDNN_WIDEST_HEAD = 8, 128


@dataclasses.dataclass(frozen=True)
class AttentionChoice:
    """What runs, and why it is not the platform's fused kernel.

    Attributes:
      name: one of ``IMPLEMENTATIONS``.
      reason: why ``auto`` fell back to ``xla`` on an accelerator; else empty.
    """

    name: str
    reason: str = ""

    def __str__(self) -> str:
        """One phrase for a table: the name, with the reason if there is one."""
        return f"{self.name} ({self.reason})" if self.reason else self.name


def resolve(attention: str, *, target: Target, head_dim: int, length: int, dtype: DTypeLike) -> AttentionChoice:
    """The concrete implementation of ``model.attention`` for one model.

    Args:
      attention: ``"auto"`` or one of ``IMPLEMENTATIONS``. ``auto`` is the fused kernel of the target's platform; it is
        ``xla`` on a CPU, where that kernel refuses, and on an accelerator that is not in ``hardware/chips.py``.
      target: what the program will run on.
      head_dim: width of one head.
      length: tokens of a row.
      dtype: of queries, keys and values.

    Raises:
      ConfigError: the named implementation does not exist, or cannot run this.
    """
    if attention == "auto":
        if target.platform not in _FUSED:
            return AttentionChoice("xla")
        fused = _FUSED[target.platform]
        reason = unsupported(fused, target=target, head_dim=head_dim, length=length, dtype=dtype)
        if target.chip is None:
            reason = f"this {target.platform} is not in hardware/chips.py"
        return AttentionChoice("xla", f"not {fused}: {reason}") if reason else AttentionChoice(fused)
    if attention not in IMPLEMENTATIONS:
        raise ConfigError(f"model.attention={attention}: unknown; use one of auto, {', '.join(IMPLEMENTATIONS)}")
    reason = unsupported(attention, target=target, head_dim=head_dim, length=length, dtype=dtype)
    if reason:
        raise ConfigError(f"model.attention={attention}: {reason}; use auto or xla")
    return AttentionChoice(attention)


def unsupported(name: str, *, target: Target, head_dim: int, length: int, dtype: DTypeLike) -> str:
    """Why one of ``IMPLEMENTATIONS`` cannot run this; empty if it can. Arguments as ``resolve``."""
    if name == "xla":
        return ""
    (platform,) = (platform for platform, fused in _FUSED.items() if fused == name)
    if target.platform != platform:
        return f"is for {platform}, and this run is on {target.platform}"
    if name == "splash":
        return "" if length % _TILES[-1] == 0 else f"data.sequence_length={length} is not a multiple of {_TILES[-1]}"
    if jnp.dtype(dtype) != jnp.bfloat16:
        return f"takes bfloat16, not model.compute_dtype={jnp.dtype(dtype).name}"
    if head_dim % _CUDNN_HEAD_STEP or head_dim > _CUDNN_WIDEST_HEAD:
        return f"model.head_dim={head_dim} is not a multiple of {_CUDNN_HEAD_STEP} up to {_CUDNN_WIDEST_HEAD}"
    return ""


def causal_attention(q_BTNH: jax.Array, k_BTMH: jax.Array, v_BTMH: jax.Array, *, implementation: str) -> jax.Array:
    """``softmax(q k^T / sqrt(H)) v`` over positions up to the query's own, ``[B, T, N, H]``; softmax in float32.

    Query head ``n`` reads key and value head ``n // (N / M)`` (grouped queries, arXiv 2305.13245). The dtype is that
    of the inputs.

    Raises:
      ValueError: an unknown implementation, or ``splash`` on rows that are no multiple of 128 tokens.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation={implementation!r}: must be one of {', '.join(IMPLEMENTATIONS)}")
    with jax.named_scope("causal_attention"):
        if implementation == "splash":
            return _splash(q_BTNH, k_BTMH, v_BTMH)
        return jax.nn.dot_product_attention(
            q_BTNH, k_BTMH, v_BTMH, is_causal=True, implementation="cudnn" if implementation == "cudnn" else "xla"
        )


def _splash(q_BTNH: jax.Array, k_BTMH: jax.Array, v_BTMH: jax.Array) -> jax.Array:
    """The batch is folded into the heads: ``b N + n`` reads ``(b N + n) // (N / M) = b M + n // (N / M)``."""
    batch, length, heads, width = q_BTNH.shape
    fitting = [tile for tile in _TILES if length % tile == 0]
    if not fitting:
        raise ValueError(f"splash attention over {length} tokens: must be a multiple of {_TILES[-1]}")
    tile = fitting[0]
    mask = splash_attention.CausalMask((length, length))
    # The kernel reads its operands with the sequence along the lanes: so XLA lays them out for the rotation, and heads
    # of 64 fill no half lanes. With the heads along the lanes it copies them around every call, which by the compiler's
    # estimate costs as much as the attention itself; the kernels issue as many bundles either way.
    layout = splash_attention.QKVLayout.SEQ_MINOR
    kernel = splash_attention.make_splash_mha_single_device(
        splash_attention.MultiHeadMask([mask] * (batch * heads)),
        block_sizes=splash_attention.BlockSizes(
            block_q=tile,
            block_kv=tile,
            block_q_dkv=tile,
            block_kv_dkv=tile,
            block_q_dq=tile,
            block_kv_dq=tile,
            q_layout=layout,
            k_layout=layout,
            v_layout=layout,
        ),
    )

    def folded(x: jax.Array) -> jax.Array:
        return x.swapaxes(1, 2).reshape(-1, length, width)

    out = kernel(folded(q_BTNH * width**-0.5), folded(k_BTMH), folded(v_BTMH))
    return out.reshape(batch, heads, length, width).swapaxes(1, 2)
