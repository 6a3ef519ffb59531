"""How long a training step takes at best, by arithmetic, and what to expect of it. Nothing is measured here.

Three times of one device, each at the peak of the chip's data sheet::

    compute       executed FLOPs / peak; fused causal attention skips the half above the diagonal
    memory        bytes that must cross the device memory / its bandwidth, see ``memory_bytes``
    interconnect  bytes sent over every mesh axis / bandwidth of its groups (``hardware/interconnect.py``), added up

The floor is the largest of them: what a step would take if all three overlapped perfectly and nothing else took time.
The expectation assumes less: ``ASSUMPTIONS`` says what.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sparsejax.models.accounting import VALUE_BYTES, executed_flops
from sparsejax.planning.ring import Traffic
from sparsejax.planning.traffic import TENSOR, Work

# Shares of the peaks that the expectation counts on: chosen, not measured. Replace them by what a first run shows.
COMPUTE_SHARE = 0.5
MEMORY_SHARE = 0.8
LINK_SHARE = 0.8

ASSUMPTIONS = (
    f"expected: products at {COMPUTE_SHARE:.0%} of peak, memory and links at {MEMORY_SHARE:.0%}; traffic over the "
    "tensor axis hidden behind nothing, all other traffic behind the products as far as it fits; no waiting for data, "
    "no evaluation, checkpoints or rewiring. Nothing was timed."
)

# Attention kernels that leave out score tiles above the diagonal.
_SKIPS_TILES = ("splash", "cudnn")

# Kinds that read the same input in one product.
_GROUPS = (("attention.q", "attention.k", "attention.v"), ("attention.o",), ("mlp.gate", "mlp.up"), ("mlp.down",))


@dataclasses.dataclass(frozen=True)
class Rates:
    """What one device does at best: FLOP/s, bytes/s of memory, and bytes/s of a group of every set of mesh axes."""

    flops: float
    memory: float
    links: Mapping[tuple[str, ...], float]


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one step on one device.

    Attributes:
      compute, memory: see the module.
      links: per set of mesh axes.
    """

    compute: float
    memory: float
    links: Mapping[tuple[str, ...], float]

    @property
    def interconnect(self) -> float:
        """Over all axes."""
        return sum(self.links.values())

    @property
    def floor(self) -> float:
        """The largest of the three."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def bound(self) -> str:
        """Name of the largest of the three."""
        times = {"compute": self.compute, "memory": self.memory, "interconnect": self.interconnect}
        return max(times, key=times.__getitem__)

    @property
    def expected(self) -> float:
        """Under ``ASSUMPTIONS``."""
        waited = sum(seconds for axes, seconds in self.links.items() if axes == (TENSOR,)) / LINK_SHARE
        hidden = self.interconnect / LINK_SHARE - waited
        return waited + max(self.compute / COMPUTE_SHARE, self.memory / MEMORY_SHARE, hidden)


def step_flops(
    work: Work, implementations: Mapping[str, str], *, attention: str, logits_recomputed: bool
) -> tuple[int, int]:
    """FLOPs of a whole step, on all devices: executed by the accounting of the project, and for the floor.

    The floor counts half of the attention square for kernels that skip tiles above the diagonal.
    """

    def train(length: int) -> int:
        flops = executed_flops(
            work.shape, work.weights, length, implementations, work.remat, logits_recomputed=logits_recomputed
        )
        return flops.train * work.tokens

    whole, square = train(work.length), train(work.length) - train(0)
    return whole, whole - square // 2 if attention in _SKIPS_TILES else whole


def memory_bytes(work: Work, *, logits_made: int, moment_bytes: int) -> int:
    """Bytes that one device has to move between its memory and its cores in a step, at least.

    - Products: every group of kinds with a common input reads it and writes its outputs, in the compute dtype; the
      backward pass reads the gradient and the input and writes a gradient of each; ``remat="full"`` runs forward twice.
    - Weights: written once when gathered, read by each pass that multiplies by them (two, three under full remat).
    - Logits, float32: written and read once each time they are made.
    - Optimizer: gradients written and read, values and both moments read and written, on the stored part.

    Norms, rotations, activations and attention's own operands are left out, so it is a lower bound.
    """
    compute, layers, parts = work.compute_bytes, work.shape.layers, work.microbatches
    passes = 3 if work.remat == "full" else 2
    shapes = {weight.name: weight.shape for weight in work.weights}
    moved = 0
    for group in _GROUPS:
        inputs, outputs = shapes[group[0]][0], sum(shapes[name][1] for name in group)
        # The side that the tensor axis cuts: inputs of o and down, outputs of the others.
        if group[0] in ("attention.o", "mlp.down"):
            inputs //= work.tensor
        else:
            outputs //= work.tensor
        moved += (passes - 1) * (inputs + outputs) + 2 * (inputs + outputs)
    activations = parts * layers * work.micro_tokens * moved * compute
    weights = parts * layers * work.stored // work.tensor * (passes + (work.fsdp > 1)) * compute
    logits = 2 * logits_made * parts * (work.micro_tokens // work.tensor) * work.shape.vocab * VALUE_BYTES
    own = (layers * work.stored + work.embedding) // (work.fsdp * work.tensor)
    return activations + weights + logits + own * (4 * VALUE_BYTES + 4 * moment_bytes)


def times_of(flops: int, moved: int, traffic: Sequence[Traffic], rates: Rates) -> Times:
    """Seconds of one step of one device: its FLOPs, its bytes of memory, its traffic."""
    links: dict[tuple[str, ...], float] = {}
    for each in traffic:
        links[each.axes] = links.get(each.axes, 0.0) + each.sent / rates.links[each.axes]
    return Times(compute=flops / rates.flops, memory=moved / rates.memory, links=links)
