"""Counts that need no model: parameters, FLOPs per token and bytes of training state. Plain Python.

A run is a ``DecoderShape`` and one ``WeightCount`` for each kind of maskable weight; its dense twin is the
same shape with ``dense_twin(weights)``. Embedding, head and norms are dense and are called the dense part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from sparsejax.models.shapes import SHARD_AXES, DecoderShape, weight_shapes

# Implementations of block_matmul that multiply the whole matrix, zeros included (kernels.api).
DENSE_IMPLEMENTATIONS = frozenset({"reference", "transient"})
SPARSE_IMPLEMENTATIONS = frozenset({"xla", "bcoo", "batched", "pallas_tpu", "pallas_gpu"})

INDEX_BYTES = 4
VALUE_BYTES = 4

# How a kind of weight is stored: active blocks (or a plain matrix where all are active), a whole matrix that is read
# through an N:M mask, or two Monarch factors.
Storage = Literal["packed", "dense_master", "monarch"]


@dataclasses.dataclass(frozen=True)
class WeightCount:
    """How one kind of weight is stored in each layer.

    Attributes:
      name: the kind, for example ``"mlp.up"``.
      shape: ``(K, N)``.
      block: ``(bk, bn)``.
      shards: number of equal shares.
      count: active blocks of one layer: weights that N:M uses, parameters of the two factors (blocks of 1 x 1).
      capacity: slots of one layer, at least ``count``: all weights under ``"dense_master"``.
      storage: how the weight is stored.
    """

    name: str
    shape: tuple[int, int]
    block: tuple[int, int]
    shards: int
    count: int
    capacity: int
    storage: Storage = "packed"

    @property
    def elements(self) -> int:
        """Elements of the dense matrix of one layer."""
        return self.shape[0] * self.shape[1]

    @property
    def cells(self) -> int:
        """Places a block can have in one layer."""
        return self.elements // (self.block[0] * self.block[1])

    @property
    def active(self) -> int:
        """Active elements of one layer."""
        return self.count * self.block[0] * self.block[1]

    @property
    def dense(self) -> bool:
        """True where every block is active: stored as a plain matrix without an index."""
        return self.storage == "packed" and self.count == self.cells

    @property
    def indexed(self) -> bool:
        """True where blocks are stored with their places and ages."""
        return self.storage == "packed" and not self.dense


def dense_weights(shape: DecoderShape) -> tuple[WeightCount, ...]:
    """The seven kinds of a fully dense decoder."""
    return tuple(
        WeightCount(name=name, shape=size, block=(1, 1), shards=1, count=size[0] * size[1], capacity=size[0] * size[1])
        for name, size in weight_shapes(shape).items()
    )


def dense_twin(weights: Iterable[WeightCount]) -> tuple[WeightCount, ...]:
    """The same kinds with every block active."""
    return tuple(
        dataclasses.replace(weight, count=weight.cells, capacity=weight.cells, storage="packed") for weight in weights
    )


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Parameter counts of a run.

    Attributes:
      total: of the dense twin.
      active: used here, ``total - maskable * (1 - density)``. Dense master weights are all trained, N of M are used.
      maskable: elements of the seven kinds of weight in the dense twin.
      dense_part: embedding, head and norms.
      embedding: embedding and, if untied, head.
      non_embedding: ``total - embedding``.
      active_non_embedding: ``active - embedding``.
    """

    total: int
    active: int
    maskable: int
    dense_part: int
    embedding: int

    @property
    def non_embedding(self) -> int:
        """Parameters of the dense twin outside embedding and head."""
        return self.total - self.embedding

    @property
    def active_non_embedding(self) -> int:
        """Active parameters outside embedding and head."""
        return self.active - self.embedding

    @property
    def density(self) -> float:
        """Realised density of the maskable weights together."""
        return (self.active - self.dense_part) / self.maskable


def parameters(shape: DecoderShape, weights: Sequence[WeightCount]) -> Parameters:
    """Exact counts of a run. Free slots are no parameters and are not counted."""
    maskable = shape.layers * sum(weight.elements for weight in weights)
    active = shape.layers * sum(weight.active for weight in weights)
    embedding = shape.vocab * shape.hidden * (1 if shape.tied_head else 2)
    dense_part = embedding + (2 * shape.layers + 1) * shape.hidden
    return Parameters(
        total=maskable + dense_part,
        active=active + dense_part,
        maskable=maskable,
        dense_part=dense_part,
        embedding=embedding,
    )


@dataclasses.dataclass(frozen=True)
class Flops:
    """Floating-point operations for one token: of the forward pass, and of a training step (forward and backward)."""

    forward: int
    train: int


def theoretical_flops(shape: DecoderShape, weights: Sequence[WeightCount], sequence_length: int) -> Flops:
    """FLOPs per token that the active parameters need, whatever program runs them. Never a basis for MFU.

    With L layers, T the sequence length, A the active elements of one layer, D hidden, V vocabulary::

        forward = L * (2 A + 4 T heads head_dim) + 2 D V        train = 3 forward

    One multiply-add is two operations; a matrix costs as much again for each of its two gradients. Attention
    is counted as the full T x T square for scores and for their product with the values, as PaLM does (arXiv
    2204.02311, appendix B); causal masking is not subtracted. Norms, rotations, softmax, activations, the
    embedding lookup and the optimizer are left out.
    """
    linear = 2 * sum(weight.active for weight in weights)
    forward = shape.layers * (linear + _attention(shape, sequence_length)) + _head(shape)
    return Flops(forward=forward, train=3 * forward)


def executed_flops(
    shape: DecoderShape,
    weights: Sequence[WeightCount],
    sequence_length: int,
    implementations: Mapping[str, str],
    remat: str,
    logits_recomputed: bool = False,
) -> Flops:
    """FLOPs per token that the compiled program executes; the numerator of MFU.

    The formula is that of ``theoretical_flops`` with two changes. A kind whose implementation multiplies the
    whole matrix (``reference``, ``transient``) counts ``2 K N``, zeros included; one that visits active blocks
    counts ``2 A``, without the partly filled chunk that ``xla`` may multiply at the end of a block column (topology
    decides it; none for blocks of 128 rows or with a balanced topology). Recomputation in the backward pass is
    executed too: ``train`` grows by the layers' forward pass without the last product, whose output no gradient needs,
    under ``remat="full"``, by their attention square under ``remat="dots"``, and by the head's product if a loss in
    chunks makes the logits twice. Dense master weights are multiplied
    whole; their masks are comparisons, not counted. Monarch factors execute what they hold.

    Args:
      shape: the decoder.
      weights: its seven kinds.
      sequence_length: tokens of a row.
      implementations: name of the ``block_matmul`` implementation of every kind that is stored as blocks.
      remat: ``"none"``, ``"full"`` or ``"dots"``.
      logits_recomputed: whether the backward pass makes the logits once more.

    Raises:
      ValueError: an unknown implementation or remat policy.
    """
    linear = {weight.name: 2 * _executed_elements(weight, implementations) for weight in weights}
    attention = _attention(shape, sequence_length)
    layer = sum(linear.values()) + attention
    forward = shape.layers * layer + _head(shape)
    (down,) = (weight for weight in weights if weight.name == "mlp.down")
    recomputed = {"none": 0, "full": layer - _last_product(down, linear["mlp.down"]), "dots": attention}
    if remat not in recomputed:
        raise ValueError(f"remat={remat!r}: must be one of {sorted(recomputed)}")
    again = shape.layers * recomputed[remat] + (_head(shape) if logits_recomputed else 0)
    return Flops(forward=forward, train=3 * forward + again)


def _last_product(weight: WeightCount, flops: int) -> int:
    """The part of a weight's FLOPs that makes its output: all, or the second of two factors ``K x i`` and ``i x N``."""
    return flops * weight.shape[1] // sum(weight.shape) if weight.storage == "monarch" else flops


def _attention(shape: DecoderShape, sequence_length: int) -> int:
    return 4 * sequence_length * shape.heads * shape.head_dim


def _head(shape: DecoderShape) -> int:
    return 2 * shape.hidden * shape.vocab


def _executed_elements(weight: WeightCount, implementations: Mapping[str, str]) -> int:
    if not weight.indexed:
        return weight.active if weight.storage == "monarch" else weight.elements
    name, _, _ = implementations[weight.name].partition("@")  # a kernel's name carries its chip
    if name in DENSE_IMPLEMENTATIONS:
        return weight.elements
    if name not in SPARSE_IMPLEMENTATIONS:
        raise ValueError(f"implementation {name!r} of {weight.name}: its executed FLOPs are not known")
    return weight.active


@dataclasses.dataclass(frozen=True)
class StateBytes:
    """Bytes of training state by kind.

    Attributes:
      values: trained values, float32.
      indices: coordinates, pointers and orders, int32; and what rewiring keeps for every place, see ``memory``.
      ages: one int32 step count for each slot of a sparse weight.
      moments: first and second moment of Adam; under GaLore of projected gradients, with the projections. An
        average of the weights (``optim.ema_decay``) is counted here too.
      gradients: float32.
    """

    values: int
    indices: int
    ages: int
    moments: int
    gradients: int

    @property
    def total(self) -> int:
        """Sum over the kinds."""
        return self.values + self.indices + self.ages + self.moments + self.gradients

    def __add__(self, other: StateBytes) -> StateBytes:
        """Sum of each kind."""
        names = [field.name for field in dataclasses.fields(self)]
        return StateBytes(*(getattr(self, name) + getattr(other, name) for name in names))


@dataclasses.dataclass(frozen=True)
class Memory:
    """State bytes of the maskable weights and of the dense part (embedding, head, norms)."""

    maskable: StateBytes
    dense_part: StateBytes

    @property
    def total(self) -> StateBytes:
        """Both parts together."""
        return self.maskable + self.dense_part


def memory(
    shape: DecoderShape,
    weights: Sequence[WeightCount],
    moment_dtype: Literal["float32", "bfloat16"] = "float32",
    galore_rank: int | None = None,
    rewired: bool = False,
    remembered: int = 0,
    averaged: bool = False,
) -> Memory:
    """Bytes of training state of a run on one device; free slots are stored, so capacity is what counts.

    Dense master weights cost what the dense twin costs: all weights, their gradients and their moments. With a
    ``galore_rank`` r (of a dense run), a weight has moments of ``r min(K, N)`` elements and a float32 projection of
    ``r max(K, N)``, r being at most ``min(K, N)``. Where blocks are ``rewired``, every place has a bit that says
    whether a block was ever there; and ``remembered`` float32 for growth scores. Where weights are
    ``averaged``, each has a float32 for its average.
    """
    moment_bytes = {"float32": 4, "bfloat16": 2}[moment_dtype]
    maskable = StateBytes(0, 0, 0, 0, 0)
    for weight in weights:
        slots = weight.capacity if weight.indexed else 0
        stored = weight.capacity * weight.block[0] * weight.block[1]
        moments = 2 * moment_bytes * stored
        if galore_rank is not None:
            short, long = sorted(weight.shape)
            moments = min(galore_rank, short) * (2 * moment_bytes * short + VALUE_BYTES * long)
        moments += VALUE_BYTES * stored if averaged else 0
        explored = -(-weight.cells // 8) if rewired and weight.indexed else 0
        scores = VALUE_BYTES * weight.cells * remembered if weight.indexed else 0
        maskable += StateBytes(
            values=shape.layers * VALUE_BYTES * stored,
            indices=shape.layers * (index_bytes(weight) + explored + scores),
            ages=shape.layers * INDEX_BYTES * slots,
            moments=shape.layers * moments,
            gradients=shape.layers * VALUE_BYTES * stored,
        )
    elements = parameters(shape, weights).dense_part
    dense_part = StateBytes(
        values=VALUE_BYTES * elements,
        indices=0,
        ages=0,
        moments=(2 * moment_bytes + (VALUE_BYTES if averaged else 0)) * elements,
        gradients=VALUE_BYTES * elements,
    )
    return Memory(maskable=maskable, dense_part=dense_part)


def index_bytes(weight: WeightCount) -> int:
    """Bytes of the index of one layer of one weight; 0 where it is not stored as blocks.

    Blocks store ``rows``, ``cols`` and ``row_order``, 12 bytes a slot, and in each share one pointer for every
    local block column and row and one to close them. Block (1, 1) stores one flat int32 a slot.
    """
    if not weight.indexed:
        return 0
    if weight.block == (1, 1):
        return INDEX_BYTES * weight.capacity
    rows, columns = weight.shape[0] // weight.block[0], weight.shape[1] // weight.block[1]
    if SHARD_AXES[weight.name] == "rows":
        rows //= weight.shards
    else:
        columns //= weight.shards
    return INDEX_BYTES * (3 * weight.capacity + weight.shards * (rows + 1 + columns + 1))
