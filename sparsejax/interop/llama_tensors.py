"""The tensors of a LLaMA checkpoint, and where each of them is in this project's parameters.

A tensor of a linear layer is ``[out, in]``; the kernel of this project is ``[in, out]``, stacked over the layers.
Rotary pairs are ``(i, i + H / 2)`` of every head in both, so nothing is permuted.
"""

from __future__ import annotations

from sparsejax.interop.llama_config import LlamaShape

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"

# Kind of weight -> module inside a decoder layer.
LINEARS = {
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.o": "self_attn.o_proj",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}
NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}


def layer_tensor(layer: int, module: str) -> str:
    """Name of the weight of a module of ``LINEARS`` or ``NORMS`` in one layer."""
    return f"model.layers.{layer}.{module}.weight"


def linear_shapes(shape: LlamaShape) -> dict[str, tuple[int, int]]:
    """``(out, in)`` of each kind of weight."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "attention.q": (queries, shape.hidden),
        "attention.k": (keys, shape.hidden),
        "attention.v": (keys, shape.hidden),
        "attention.o": (shape.hidden, queries),
        "mlp.gate": (shape.mlp, shape.hidden),
        "mlp.up": (shape.mlp, shape.hidden),
        "mlp.down": (shape.hidden, shape.mlp),
    }


def tensor_shapes(shape: LlamaShape) -> dict[str, tuple[int, ...]]:
    """Every tensor that a checkpoint of this shape has, in the order of the model."""
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (shape.vocab_size, shape.hidden)}
    for layer in range(shape.layers):
        shapes |= {layer_tensor(layer, module): (shape.hidden,) for module in NORMS.values()}
        linears = linear_shapes(shape)
        shapes |= {layer_tensor(layer, module): linears[kind] for kind, module in LINEARS.items()}
    shapes[NORM] = (shape.hidden,)
    if not shape.tied_head:
        shapes[HEAD] = (shape.vocab_size, shape.hidden)
    return shapes
