"""What the devices of a mesh send each other in one training step, by formula. Plain Python; nothing is compiled.

With R replicas, F devices of the fsdp axis, T of the tensor axis, A microbatches, L layers, per layer V stored elements
of the seven kinds, D hidden, N vocabulary, c bytes of the compute dtype, and M tokens of one microbatch on one device
(before they are cut along the tensor axis), the payloads are::

    over fsdp           gather   A L 2 c V / T       forward, and again backward: gathered weights are never kept
                        scatter  A L 4 V / T         gradients, float32
    over fsdp, tensor   gather   A 2 c N D           embedding and head (once if they are tied), forward only
                        scatter  A 2 4 N D
    over replica        sum      4 (L V / T + 2 N D / T) / F
    over tensor         sum      A L k c M D         k = 4: o and down, forward and backward; 5 with any remat

The first three fall with density, but for embedding and head; the last does not depend on it. A teacher, dense and
never differentiated, adds a forward pass: per layer its ``V`` dense elements are gathered once, embedding and head too,
and k grows by 2. Where its layers are compared (``init.feature_weight``) and recomputed, that happens again: k grows by
3 more, and under remat="full" the elements are gathered twice.

Cutting activations along tokens (``mesh.sequence``) writes each sum as a scatter and a gather, which send as much. What
a device sends of a payload is said in ``collectives.py``. Norm scales, loss sums and the gradient norm are left out.

The ways of cutting are those of Megatron-LM (arXiv 1909.08053, 2205.05198) and of FSDP (arXiv 2304.11277).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sparsejax.models.accounting import VALUE_BYTES, WeightCount
from sparsejax.models.shapes import DecoderShape
from sparsejax.planning.ring import Traffic, sent_bytes

FSDP, TENSOR, REPLICA = "fsdp", "tensor", "replica"


@dataclasses.dataclass(frozen=True)
class Work:
    """One training step of a mesh.

    Attributes:
      shape: the decoder.
      weights: its seven kinds, as stored.
      replica, fsdp, tensor: devices along the mesh axes.
      rows: of the global batch.
      length: tokens of a row.
      microbatches: equal parts of every device's rows.
      compute_bytes: of an element of activations and gathered weights.
      remat: ``model.remat``.
      apart: whether replicas train apart and sum nothing in a step (``outer.every`` above 1).
      teacher: whether a dense teacher of this shape goes along.
      compared: whether its layers are compared with the run's.
    """

    shape: DecoderShape
    weights: Sequence[WeightCount]
    replica: int
    fsdp: int
    tensor: int
    rows: int
    length: int
    microbatches: int
    compute_bytes: int
    remat: str
    apart: bool = False
    teacher: bool = False
    compared: bool = False

    @property
    def devices(self) -> int:
        """Of the whole mesh."""
        return self.replica * self.fsdp * self.tensor

    @property
    def tokens(self) -> int:
        """Of the global batch."""
        return self.rows * self.length

    @property
    def micro_tokens(self) -> int:
        """M: tokens of one microbatch on the devices of one tensor group."""
        return self.tokens // (self.replica * self.fsdp * self.microbatches)

    @property
    def stored(self) -> int:
        """V: stored elements of the seven kinds in one layer, free slots included."""
        return sum(stored_elements(weight) for weight in self.weights)

    @property
    def dense(self) -> int:
        """Elements of the seven kinds of a dense layer."""
        return sum(weight.shape[0] * weight.shape[1] for weight in self.weights)

    @property
    def embedding(self) -> int:
        """Elements of the embedding, and of the head unless it is tied."""
        return self.shape.vocab * self.shape.hidden * (1 if self.shape.tied_head else 2)


def stored_elements(weight: WeightCount) -> int:
    """Elements of one layer of a weight that are stored and trained."""
    return weight.capacity * weight.block[0] * weight.block[1]


def step_traffic(work: Work) -> tuple[Traffic, ...]:
    """The collectives of one step, see the module; largest first."""
    layers, parts, compute = work.shape.layers, work.microbatches, work.compute_bytes
    gathered = layers * work.stored // work.tensor
    cut = work.fsdp * work.tensor
    recomputed = work.remat != "none"
    # What the comparison of layers needs of both models is made again with the layer.
    again = recomputed and work.compared
    sums = 4 + recomputed + 2 * work.teacher + 3 * again
    taught = (1 + (again and work.remat == "full")) * work.teacher
    of_teacher = taught * layers * work.dense // work.tensor
    tables = 1 if work.shape.tied_head else 2
    read = 1 + work.teacher
    found = [
        _traffic(
            "all-gather",
            (FSDP,),
            work.fsdp,
            (2 + taught) * parts * layers,
            parts * compute * (2 * gathered + of_teacher),
        ),
        _traffic("reduce-scatter", (FSDP,), work.fsdp, parts * layers, parts * VALUE_BYTES * gathered),
        _traffic("all-gather", (FSDP, TENSOR), cut, read * tables * parts, read * parts * compute * work.embedding),
        _traffic("reduce-scatter", (FSDP, TENSOR), cut, tables * parts, parts * VALUE_BYTES * work.embedding),
        _traffic(
            "all-reduce",
            (REPLICA,),
            1 if work.apart else work.replica,
            len(work.weights) + tables,
            VALUE_BYTES * (gathered + work.embedding // work.tensor) // work.fsdp,
        ),
        _traffic(
            "all-reduce",
            (TENSOR,),
            work.tensor,
            parts * layers * sums,
            parts * layers * sums * compute * work.micro_tokens * work.shape.hidden,
        ),
    ]
    return tuple(sorted((each for each in found if each.group > 1), key=lambda each: -each.sent))


def _traffic(kind: str, axes: tuple[str, ...], group: int, count: int, payload: int) -> Traffic:
    return Traffic(kind, axes, group, count, payload, sent_bytes(kind, group, payload))
