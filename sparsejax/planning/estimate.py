"""Bytes that one device holds in the middle of a training step, by arithmetic: where no compiler can say.

An estimate: what a compiler fuses, keeps twice or copies it does not know. Names are said to users, so that they see
which of them to make smaller. Axes and symbols are those of ``traffic.py``.
"""

from __future__ import annotations

from sparsejax.models.accounting import VALUE_BYTES
from sparsejax.planning.traffic import Work

GRADIENTS = "gradients"
GATHERED = "weights of two layers, gathered"
TABLES = "embedding and head, gathered, and their gradients"
KEPT = "activations kept for the backward pass"
LAYER = "activations of one layer while it is differentiated"
LOGITS = "logits of one chunk, and their gradient"
TEACHER = "activations of one layer and logits of one chunk of the teacher"


def step_bytes(work: Work, *, attention: str, chunk_tokens: int, sequence: bool) -> dict[str, int]:
    """Bytes of one device in a step, beside its state, by what they are.

    Args:
      work: the step.
      attention: implementation; ``xla`` keeps the scores of one layer, and of all layers without remat.
      chunk_tokens: tokens whose logits exist at a time on one device.
      sequence: whether the residual stream is cut along tokens over the tensor axis.
    """
    layers, compute, tensor = work.shape.layers, work.compute_bytes, work.tensor
    residual = work.shape.hidden // (tensor if sequence else 1)
    per_token = _layer_elements(work, residual, attention)
    kept = {"full": residual, "dots": residual + _linear_outputs(work), "none": per_token}[work.remat]
    one_gathered = work.stored // tensor * compute if work.fsdp > 1 else 0
    tables = work.shape.vocab * work.shape.hidden * (compute + VALUE_BYTES) if work.fsdp * tensor > 1 else 0
    return {
        GRADIENTS: VALUE_BYTES * (layers * work.stored + work.embedding) // (work.fsdp * tensor),
        GATHERED: 2 * one_gathered,
        TABLES: tables,
        KEPT: layers * work.micro_tokens * kept * compute,
        LAYER: 2 * work.micro_tokens * per_token * compute,
        LOGITS: 2 * VALUE_BYTES * work.shape.vocab * chunk_tokens,
    }


def teacher_bytes(work: Work, *, attention: str, chunk_tokens: int) -> int:
    """Bytes of one device for the forward pass of a teacher as wide as the run's model; arguments as ``step_bytes``."""
    per_token = _layer_elements(work, work.shape.hidden, attention)
    return work.micro_tokens * per_token * work.compute_bytes + 2 * VALUE_BYTES * work.shape.vocab * chunk_tokens


def _linear_outputs(work: Work) -> int:
    """Elements a token of all outputs of a layer's products on one device."""
    by_name = {weight.name: weight.shape[1] for weight in work.weights}
    cut = sum(width for name, width in by_name.items() if name not in ("attention.o", "mlp.down")) // work.tensor
    return cut + by_name["attention.o"] + by_name["mlp.down"]


def _layer_elements(work: Work, residual: int, attention: str) -> int:
    """Elements a token that the backward pass of one layer reads."""
    shape, tensor = work.shape, work.tensor
    heads = shape.heads * shape.head_dim // tensor
    # Both norms' inputs and outputs, rotated queries and keys, attention's output, and the gated product.
    beside = 4 * residual + 3 * heads + 2 * shape.mlp // tensor
    scores = 3 * shape.heads // tensor * work.length if attention == "xla" else 0
    return _linear_outputs(work) + beside + scores
