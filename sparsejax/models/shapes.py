"""What a LLaMA decoder is made of: its widths and the seven kinds of weight that sparse training may cut.

Plain Python, so that accounting and the scaling room can use it without JAX.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from sparsejax.config import ModelConfig

# The axis of W [K, N] (in, out) that tensor parallelism cuts into shares (Megatron-LM, arXiv 1909.08053, section 3):
# columns where the outputs of the shares stay apart, rows where they are summed.
SHARD_AXES: dict[str, Literal["rows", "columns"]] = {
    "attention.q": "columns",
    "attention.k": "columns",
    "attention.v": "columns",
    "attention.o": "rows",
    "mlp.gate": "columns",
    "mlp.up": "columns",
    "mlp.down": "rows",
}


@dataclasses.dataclass(frozen=True)
class DecoderShape:
    """Widths of a LLaMA decoder without biases.

    Attributes:
      hidden: width of the residual stream.
      mlp: inner width of the SwiGLU layer, as used (after rounding to blocks and shares).
      heads: query heads.
      kv_heads: key and value heads; divides ``heads``.
      head_dim: width of one head.
      layers: number of decoder layers.
      vocab: size of the vocabulary.
      tied_head: the head reuses the embedding.
    """

    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    vocab: int
    tied_head: bool


def shape_of_model(model: ModelConfig, mlp: int, vocab: int) -> DecoderShape:
    """Shape of a configured model whose MLP width is really ``mlp`` and whose tokenizer has ``vocab`` tokens."""
    return DecoderShape(
        hidden=model.hidden,
        mlp=mlp,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        layers=model.layers,
        vocab=vocab,
        tied_head=model.tied_head,
    )


def weight_shapes(shape: DecoderShape) -> dict[str, tuple[int, int]]:
    """``(K, N)`` of each kind of maskable weight, for one layer."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "attention.q": (shape.hidden, queries),
        "attention.k": (shape.hidden, keys),
        "attention.v": (shape.hidden, keys),
        "attention.o": (queries, shape.hidden),
        "mlp.gate": (shape.hidden, shape.mlp),
        "mlp.up": (shape.hidden, shape.mlp),
        "mlp.down": (shape.mlp, shape.hidden),
    }
