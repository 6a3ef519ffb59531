"""The LLaMA decoder (arXiv 2302.13971), dense or sparse weight by weight.

Layers are stacked on a leading axis and run by one ``jax.lax.scan``, so compile time does not grow with depth.
Axes: B batch, T sequence, D hidden, V vocabulary, N query heads, M key and value heads, H head width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax.config import ModelConfig
from sparsejax.models.attention import causal_attention
from sparsejax.models.layers import (
    RMSNorm,
    Rotation,
    rope_frequencies,
    rotate,
    rotation_of,
)
from sparsejax.models.linear_group import apply_gated, apply_group
from sparsejax.models.masked_linear import MaskedLinear
from sparsejax.models.monarch import MonarchLinear
from sparsejax.models.monarch_shape import MonarchShape
from sparsejax.models.parallel import ALONE, FSDP, TENSOR, Parallel, all_but_gathered
from sparsejax.models.sparse_linear import LINEAR_OUTPUT, SparseLinear, initial_std
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology.keys import weight_key
from sparsejax.topology.nm import NmPattern

Linear = SparseLinear | MaskedLinear | MonarchLinear
MakeLinear = Callable[[str], Linear]


class Attention(nnx.Module):
    """Causal self-attention with rotary positions and grouped key and value heads."""

    def __init__(self, model: ModelConfig, linear: MakeLinear, implementation: str, parallel: Parallel) -> None:
        """``linear`` makes the layer's weight of a given kind; ``implementation`` is that of ``causal_attention``."""
        self.implementation, self.parallel = implementation, parallel
        self.heads, self.kv_heads, self.head_dim = model.heads, model.kv_heads, model.head_dim
        self.q, self.k = linear("attention.q"), linear("attention.k")
        self.v, self.o = linear("attention.v"), linear("attention.o")

    def project(self, x_BTD: jax.Array, rotation: Rotation) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rotated queries ``[B, T, N, H]``, rotated keys and plain values ``[B, T, M, H]``."""
        q, k, v = apply_group(self.parallel.enter(x_BTD), (self.q, self.k, self.v))
        q_BTNH = self._split_heads(q, self.heads)
        k_BTMH, v_BTMH = self._split_heads(k, self.kv_heads), self._split_heads(v, self.kv_heads)
        return rotate(q_BTNH, rotation), rotate(k_BTMH, rotation), v_BTMH

    def __call__(self, x_BTD: jax.Array, rotation: Rotation) -> jax.Array:
        """Attend to all earlier positions and the own one; ``[B, T, D]``."""
        return self.output(causal_attention(*self.project(x_BTD, rotation), implementation=self.implementation))

    def output(self, heads_BTNH: jax.Array) -> jax.Array:
        """What the heads attended to as an addition to the residual stream; ``[B, T, D]``."""
        return self.parallel.leave(self.o(heads_BTNH.reshape(*heads_BTNH.shape[:2], self.heads * self.head_dim)))

    def _split_heads(self, x: jax.Array, heads: int) -> jax.Array:
        return x.reshape(*x.shape[:-1], heads, self.head_dim)


class Mlp(nnx.Module):
    """``down(silu(gate(x)) * up(x))``."""

    def __init__(self, linear: MakeLinear, parallel: Parallel) -> None:
        """``linear`` makes the layer's weight of a given kind."""
        self.parallel = parallel
        self.gate, self.up, self.down = linear("mlp.gate"), linear("mlp.up"), linear("mlp.down")

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """``[B, T, D]`` to ``[B, T, D]``."""
        return self.parallel.leave(self.down(apply_gated(self.parallel.enter(x_BTD), self.gate, self.up)))


class DecoderLayer(nnx.Module):
    """Pre-norm residual layer: attention, then MLP."""

    def __init__(self, model: ModelConfig, linear: MakeLinear, attention: str, parallel: Parallel) -> None:
        """``linear`` makes the layer's weight of a given kind; ``attention`` is a name of ``attention.py``."""
        self.attention_norm = RMSNorm(model.hidden, model.rms_eps)
        self.attention = Attention(model, linear, attention, parallel)
        self.mlp_norm = RMSNorm(model.hidden, model.rms_eps)
        self.mlp = Mlp(linear, parallel)

    def __call__(self, x_BTD: jax.Array, rotation: Rotation) -> jax.Array:
        """``[B, T, D]`` to ``[B, T, D]``, in the dtype of the residual stream."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotation)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))

    def hold_scored_kernels(self, parts: int) -> None:
        """Prepare every weight with a probe for a batch in ``parts``; see ``SparseLinear.hold_scored_kernel``."""
        attention, mlp = self.attention, self.mlp
        for linear in (attention.q, attention.k, attention.v, attention.o, mlp.gate, mlp.up, mlp.down):
            if isinstance(linear, SparseLinear) and hasattr(linear, "probe"):
                linear.hold_scored_kernel(parts)


class Embed(nnx.Module):
    """Token embedding, float32 ``[V, D]``."""

    def __init__(self, vocab: int, hidden: int, std: float, key: jax.Array) -> None:
        """Normal with standard deviation ``std``."""
        self.embedding = nnx.Param(std * jax.random.normal(key, (vocab, hidden), jnp.float32))


class Head(nnx.Module):
    """Output projection of its own, float32 ``[D, V]``; a tied model has none."""

    def __init__(self, hidden: int, vocab: int, std: float, key: jax.Array) -> None:
        """Normal with standard deviation ``std``."""
        self.kernel = nnx.Param(std * jax.random.normal(key, (hidden, vocab), jnp.float32))


class Llama(nnx.Module):
    """Decoder from tokens to logits. Parameters are float32, activations ``model.compute_dtype``.

    Parameter paths: ``embed/embedding``, ``layers/attention_norm/scale``, ``layers/attention/{q,k,v,o}/...``,
    ``layers/mlp_norm/scale``, ``layers/mlp/{gate,up,down}/...``, ``norm/scale``, ``head/kernel``; everything
    below ``layers`` has a leading layer axis. ``...`` is ``values`` (and the index); ``kernel`` for a dense weight and
    for dense master weights; ``first`` and ``second`` for Monarch factors.
    """

    def __init__(
        self,
        model: ModelConfig,
        weights: Mapping[str, SparseWeight],
        init_seed: int | jax.Array,
        topology_seed: int | jax.Array,
        *,
        vocab_size: int,
        implementations: Mapping[str, str],
        attention: str,
        parallel: Parallel = ALONE,
    ) -> None:
        """Draw every layer's weights and topology.

        Args:
          model: widths, numerics, remat policy.
          weights: the density table, see ``weight_table``; the MLP width is that of its grids.
          init_seed: seed of the values; equal seeds give equal models. May be traced.
          topology_seed: seed of the places of the blocks. May be traced.
          vocab_size: number of tokens.
          implementations: resolved ``block_matmul`` name of each kind that is stored as blocks.
          attention: resolved name of ``attention.IMPLEMENTATIONS``.
          parallel: the mesh inside which it is called; ``model`` and ``weights`` are then the part of one device.

        Raises:
          KeyError: a sparse kind has no implementation.
        """
        self.model, self.parallel = model, parallel

        def linear(name: str, layer: jax.Array) -> Linear:
            return _linear(
                model,
                weights[name],
                implementations[name] if weights[name].packed else "dense",
                weight_key(init_seed, 0, f"init.{name}", layer),
                weight_key(topology_seed, 0, name, layer),
                parallel,
            )

        @nnx.vmap
        def decoder_layer(layer: jax.Array) -> DecoderLayer:
            return DecoderLayer(model, lambda name: linear(name, layer), attention, parallel)

        self.embed = Embed(vocab_size, model.hidden, model.init_std, weight_key(init_seed, 0, "init.embed", 0))
        self.layers = decoder_layer(jnp.arange(model.layers))
        self.norm = RMSNorm(model.hidden, model.rms_eps)
        if not model.tied_head:
            self.head = Head(model.hidden, vocab_size, model.init_std, weight_key(init_seed, 0, "init.head", 0))

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        """Logits float32 ``[B, T, V]`` of integer tokens; position t sees tokens 0 to t."""
        return self.logits(self.hidden_states(tokens_BT))

    def hidden_states(self, tokens_BT: jax.Array, scored_parts: int = 0) -> jax.Array:
        """Normalised output of the last layer, ``[B, T, D]`` in the compute dtype; all but the head.

        With ``parallel.sequence`` these are the device's own tokens of the T.

        ``scored_parts`` above 0 is for the score program (``training/growth_scores.py``): the layer takes the batch
        in that many equal parts one after another, and above 1 weights with a probe are made dense once a layer. So
        the gradient of a weight is whole when its layer is done, while its activations exist for one part and dense
        weights for one layer only.
        """
        x_BTD = self.embedded(self.parallel.own_tokens(tokens_BT) if self.parallel.sequence else tokens_BT)
        rotation = rotation_of(jnp.arange(tokens_BT.shape[1]), rope_frequencies(self.model))
        graphdef, *states = nnx.split(self.layers, nnx.Param, ...)

        def body(x_BTD: jax.Array, states: list[nnx.State]) -> tuple[jax.Array, None]:
            layer = nnx.merge(graphdef, *states)
            if not scored_parts:
                return layer(x_BTD, rotation), None
            layer.hold_scored_kernels(scored_parts)
            apply = jax.checkpoint(partial(layer, rotation=rotation), prevent_cse=False)
            parts_ABTD = x_BTD.reshape(scored_parts, -1, *x_BTD.shape[1:])
            return jax.lax.map(apply, parts_ABTD).reshape(x_BTD.shape), None

        policy = "full" if scored_parts else self.model.remat
        x_BTD, _ = jax.lax.scan(_remat(body, policy, gathers=self.parallel.fsdp > 1), x_BTD, states)
        return self.norm(x_BTD)

    def rematerialised(self, body: Callable) -> Callable:
        """The body of a scan over the layers, with what ``model.remat`` says is made again in the backward pass."""
        return _remat(body, self.model.remat, gathers=self.parallel.fsdp > 1)

    def embedded(self, tokens_BT: jax.Array) -> jax.Array:
        """Rows of the embedding, ``[B, T, D]`` in the compute dtype: the input of the first layer."""
        with jax.named_scope("embedding"):
            return self._whole(self.embed.embedding[...], 1)[tokens_BT].astype(self.model.compute_dtype)

    @property
    def head_kernel(self) -> jax.Array:
        """The matrix ``[D, V]`` from hidden states to logits, float32: the head's own, or the embedding's transpose."""
        if self.model.tied_head:
            return self._whole(self.embed.embedding[...], 1).T
        return self._whole(self.head.kernel[...], 0)

    def _whole(self, weight: jax.Array, axis: int) -> jax.Array:
        """Embedding or head, of which every device stores a part of the hidden width."""
        return self.parallel.gather(weight, axis, self.model.compute_dtype, over=(FSDP, TENSOR))

    def logits(self, hidden_BTD: jax.Array) -> jax.Array:
        """Logits ``[B, T, V]`` float32: products in the compute dtype, summed in float32."""
        return self.logits_by(self.head_kernel, hidden_BTD)

    def logits_by(self, head_kernel_DV: jax.Array, hidden_BTD: jax.Array) -> jax.Array:
        """``logits`` with a ``head_kernel`` that was read before, for whoever makes them a chunk at a time."""
        kernel_DV = head_kernel_DV.astype(self.model.compute_dtype)
        # One token axis: with two, the gradient of the kernel contracts over both, for which XLA's CPU backend has
        # no fast product.
        hidden_MD = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
        logits_MV = jnp.matmul(hidden_MD, kernel_DV, preferred_element_type=jnp.float32)
        return logits_MV.reshape(*hidden_BTD.shape[:-1], -1)


def _linear(
    model: ModelConfig,
    weight: SparseWeight,
    implementation: str,
    init_key: jax.Array,
    topology_key: jax.Array,
    parallel: Parallel,
) -> Linear:
    """One weight of one layer, in the storage that the density table gives it."""
    dtype, std = model.compute_dtype, model.init_std
    shape, structure = weight.grid.shape, weight.structure
    # Master weights are dense, and factors are scaled to their product: the density enters neither.
    if isinstance(structure, NmPattern):
        cut_axis = 1 if weight.grid.shard_axis == "rows" else 0
        return MaskedLinear(
            shape, structure, compute_dtype=dtype, std=std, init_key=init_key, cut_axis=cut_axis, parallel=parallel
        )
    if isinstance(structure, MonarchShape):
        return MonarchLinear(shape, structure, compute_dtype=dtype, std=std, init_key=init_key)
    return SparseLinear(
        weight,
        implementation=implementation,
        compute_dtype=dtype,
        std=initial_std(model.init, std, weight.density),
        init_key=init_key,
        topology_key=topology_key,
        parallel=parallel,
    )


def _remat(body: Callable, policy: str, *, gathers: bool) -> Callable:
    """Wrap the body of the layer scan: keep everything, only the layer inputs, or also the linear outputs.

    Weights that the layer ``gathers`` from other devices are never kept: that would be a copy of the whole model.
    """
    if policy == "none" and not gathers:
        return body
    keep = {
        "none": all_but_gathered,
        "full": jax.checkpoint_policies.nothing_saveable,
        "dots": jax.checkpoint_policies.save_only_these_names(LINEAR_OUTPUT),
    }
    # Forward and backward are different loops, so common subexpressions cannot undo the recomputation.
    return jax.checkpoint(body, policy=keep[policy], prevent_cse=False)
