"""Weak scaling on paper: bytes and seconds of one device against chips and density. Plain Python, nothing measured.

    python -m sparsejax.planning.weak_scaling

prints the tables of docs/PERFORMANCE.md, where the formulas are derived. The work of a device stays the same while
chips are added: every group of the tensor axis has M tokens a step. The machine is a torus each of whose dimensions is
closed and belongs to one mesh axis, so a device sends over two links, in a group that spans two axes over four.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from sparsejax.hardware.chips import chip_named
from sparsejax.hardware.interconnect import interconnect_of
from sparsejax.models.accounting import VALUE_BYTES, WeightCount, dense_weights
from sparsejax.models.sizes import SIZES, rounded_mlp
from sparsejax.planning.floor import Rates, Times, memory_bytes, step_flops, times_of
from sparsejax.planning.traffic import FSDP, REPLICA, TENSOR, Work, step_traffic

LENGTH = 2048
MOMENT_BYTES = 4
DENSITIES = (1.0, 0.5, 0.25, 0.125)
# Sets of mesh axes, and what goes over them.
WEIGHTS, TABLES, GRADIENTS, SUMS = (FSDP,), (FSDP, TENSOR), (REPLICA,), (TENSOR,)
_AXES = (WEIGHTS, TABLES, GRADIENTS, SUMS)
# Of one index entry, its age, and the three numbers of its place (``models.accounting.index_bytes``).
_SLOT_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Row:
    """One model on one mesh; bytes and seconds are of one device and one step.

    Attributes:
      work: the step.
      density: of the seven kinds.
      state: bytes of values, moments, indices and ages.
      sent: bytes over every set of mesh axes.
      times: seconds at the peaks of the chip.
    """

    work: Work
    density: float
    state: int
    sent: dict[tuple[str, ...], int]
    times: Times

    @property
    def longest(self) -> str:
        """What takes longest at the peaks; the interconnect by its longest part."""
        if self.times.bound != "interconnect":
            return self.times.bound
        longest = max(self.times.links, key=self.times.links.__getitem__)
        return "tensor axis" if longest == SUMS else f"links: {', '.join(longest)}"


def weak_scaling_row(
    size: str, density: float, mesh: tuple[int, int, int], *, chip: str, tokens: int, block: int = 128
) -> Row:
    """One row: a published size in blocks, everything recomputed, bfloat16, one microbatch.

    Args:
      size: a name of ``models.sizes.SIZES``.
      density: share of active blocks, in (0, 1].
      mesh: replica, fsdp, tensor.
      chip: a TPU of ``hardware.chips``.
      tokens: M, of every group of the tensor axis; a multiple of 2048.
      block: side of the blocks.
    """
    replica, fsdp, tensor = mesh
    published = SIZES[size]
    shape = published.shape(rounded_mlp(published.mlp, (block, block), tensor))
    weights = tuple(_in_blocks(weight, density, block, tensor) for weight in dense_weights(shape))
    rows = tokens // LENGTH * replica * fsdp
    work = Work(shape, weights, replica, fsdp, tensor, rows, LENGTH, microbatches=1, compute_bytes=2, remat="full")
    links, peaks = interconnect_of(chip), chip_named(chip)
    rates = Rates(peaks.peak_flops, peaks.memory_bandwidth, _RingOfEveryAxis(2 * links.link_bandwidth))
    implementations = {weight.name: "pallas_tpu" for weight in weights}
    _, flops = step_flops(work, implementations, attention="splash", logits_recomputed=True)
    moved = memory_bytes(work, logits_made=2, moment_bytes=MOMENT_BYTES)
    traffic = step_traffic(work)
    sent: dict[tuple[str, ...], int] = {}
    for each in traffic:
        sent[each.axes] = sent.get(each.axes, 0) + each.sent
    slots = shape.layers * sum(weight.capacity for weight in weights if weight.indexed)
    elements = shape.layers * work.stored + work.embedding
    state = ((VALUE_BYTES + 2 * MOMENT_BYTES) * elements + _SLOT_BYTES * slots) // (fsdp * tensor)
    return Row(work, density, state, sent, times_of(flops // work.devices, moved, traffic, rates))


def takeover_density(row: Row) -> float:
    """Density at which gathering and scattering the weights takes as long as the sums over the tensor axis.

    Below it the tensor axis takes longer. Above 1 it does at any density. The traffic of weights is proportional to
    density, that of the tensor axis does not depend on it.
    """
    return row.density * row.times.links[SUMS] / row.times.links[WEIGHTS]


class _RingOfEveryAxis(dict[tuple[str, ...], float]):
    """Bytes/s of a group by its mesh axes, each of which owns one closed dimension of a torus."""

    def __init__(self, ring: float) -> None:
        super().__init__()
        self.ring = ring

    def __missing__(self, axes: tuple[str, ...]) -> float:
        return self.ring * len(axes)


def _in_blocks(weight: WeightCount, density: float, block: int, shards: int) -> WeightCount:
    cells = weight.elements // block**2
    count = max(round(density * cells / shards), 1) * shards
    return dataclasses.replace(weight, block=(block, block), shards=shards, count=count, capacity=count)


def scaling_table(size: str, chip: str, tokens: int, meshes: Sequence[tuple[int, int, int]]) -> Iterator[str]:
    """A Markdown table, one row a mesh and density."""
    yield (
        "| chips | mesh | density | state MiB | weights MiB | tables MiB | replica MiB | tensor MiB "
        "| weights ms | tensor ms | all links ms | compute ms | longest |"
    )
    yield "| --- " * 13 + "|"
    for mesh in meshes:
        for density in DENSITIES:
            row = weak_scaling_row(size, density, mesh, chip=chip, tokens=tokens)
            sent = [row.sent[axes] / 2**20 if axes in row.sent else 0.0 for axes in _AXES]
            seconds = [row.times.links[axes] if axes in row.times.links else 0.0 for axes in (WEIGHTS, SUMS)]
            seconds += [row.times.interconnect, row.times.compute]
            cells = [f"{row.work.devices}", "x".join(map(str, mesh)), f"{density:g}", f"{row.state / 2**20:.0f}"]
            cells += [*(f"{mib:.0f}" for mib in sent), *(f"{1e3 * each:.1f}" for each in seconds), row.longest]
            yield f"| {' | '.join(cells)} |"


def takeover_table(chip: str, sizes: Sequence[str], tokens: Sequence[int], mesh: tuple[int, int, int]) -> Iterator[str]:
    """A Markdown table of takeover densities, one row a size, one column for every M."""
    yield f"| size | {' | '.join(f'M = {number:,}' for number in tokens)} |"
    yield "| --- " * (1 + len(tokens)) + "|"
    for size in sizes:
        found = (takeover_density(weak_scaling_row(size, 1.0, mesh, chip=chip, tokens=number)) for number in tokens)
        yield f"| {size} | {' | '.join(f'{density:.2f}' for density in found)} |"


def printed() -> dict[str, list[str]]:
    """The tables of docs/PERFORMANCE.md by what is above them."""
    return {
        "1b on v5p, M = 8,192": list(scaling_table("1b", "v5p", 8192, [(1, 16, 4), (4, 16, 4), (64, 16, 4)])),
        "7b on v5p, M = 8,192": list(scaling_table("7b", "v5p", 8192, [(1, 16, 4), (16, 16, 4)])),
        "7b on v5p without a tensor axis, M = 2,048": list(scaling_table("7b", "v5p", 2048, [(1, 64, 1), (16, 64, 1)])),
        "takeover density on v5p, fsdp 16, tensor 4": list(
            takeover_table("v5p", ("1b", "3b84", "7b"), (2048, 4096, 8192, 16384, 32768), (1, 16, 4))
        ),
    }


if __name__ == "__main__":
    for title, lines in printed().items():
        print(f"{title}\n", *lines, "", sep="\n")
