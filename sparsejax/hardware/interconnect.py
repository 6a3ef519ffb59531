"""How fast devices reach each other: links of TPU tori, NVLink and network cards of GPU nodes.

All figures are for **one jax device and one direction**, in bytes/s, like those of ``chips.py``. Vendors quote both
directions together and whole chips: half of what they say, and on TPU7x, whose chip is two devices, a quarter.

The bandwidth of a group of devices is what one of them can send and receive at the same time while the group runs a
ring: of a torus, the link to the next device of every dimension that the group spans, twice where the dimension is
closed to a ring. That is the model of Google's "How to scale your model" (jax-ml.github.io/scaling-book, TPUs).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Interconnect:
    """Links of one kind of chip.

    Attributes:
      chip: name in ``chips.CHIPS``.
      dimensions: of the torus; 0 for GPUs, which a switch joins.
      ring: a torus dimension is closed where its length is a multiple of this; 0 for GPUs.
      link_bandwidth: of one link of the torus; for GPUs of all links of one device to the switch of its node.
      network_bandwidth: of one device's share of the network between slices or nodes.
      node: devices of one node, for GPUs; devices of one chip, for TPUs.
      node_bandwidth: between the devices of one node or chip.
      source: where the figures come from.
    """

    chip: str
    dimensions: int
    ring: int
    link_bandwidth: float
    network_bandwidth: float
    node: int
    node_bandwidth: float
    source: str


_V4 = "arXiv 2304.01433, table 4 (6 links of 50 GB/s a direction); scaling-book for the network"
_V5E = "cloud.google.com/tpu/docs/v5e: 400 GB/s both directions, 4 ports; 6.4 Tbit/s of network for 256 chips"
_V5P = "cloud.google.com/tpu/docs/v5p: 1200 GB/s both directions, 3D torus; 50 Gbit/s of network"
_V6E = "cloud.google.com/tpu/docs/v6e: 800 GB/s both directions, 4 ports; scaling-book for the network"
_TPU7X = (
    "cloud.google.com/tpu/docs/tpu7x: 1200 GB/s both directions, 3D torus; 100 Gbit/s of network; "
    "dies of a chip joined at six times a link"
)
_A100 = "NVIDIA A100 datasheet: NVLink 600 GB/s both directions; DGX A100: one 200 Gbit/s card a GPU"
_H100 = "NVIDIA H100 datasheet: NVLink 900 GB/s both directions; DGX H100: one 400 Gbit/s card a GPU"
_H200 = "NVIDIA H200 datasheet: NVLink 900 GB/s both directions; DGX H200: one 400 Gbit/s card a GPU"
_B200 = "NVIDIA DGX B200 datasheet: NVLink 1800 GB/s both directions; one 400 Gbit/s card a GPU"
_PCIE = "PCI Express cards: 16 lanes, {generation}; no NVLink assumed; one {card} Gbit/s card a GPU assumed"
_PCIE_4, _PCIE_5 = _PCIE.format(generation="4.0", card=200), _PCIE.format(generation="5.0", card=400)

INTERCONNECTS: tuple[Interconnect, ...] = (
    Interconnect("v4", 3, 4, 50e9, 6.25e9, 1, 0.0, _V4),
    Interconnect("v5e", 2, 16, 50e9, 3.125e9, 1, 0.0, _V5E),
    Interconnect("v5p", 3, 4, 100e9, 6.25e9, 1, 0.0, _V5P),
    Interconnect("v6e", 2, 16, 100e9, 12.5e9, 1, 0.0, _V6E),
    Interconnect("tpu7x", 3, 4, 50e9, 6.25e9, 2, 600e9, _TPU7X),
    Interconnect("a100-40gb", 0, 0, 300e9, 25e9, 8, 300e9, _A100),
    Interconnect("a100-80gb", 0, 0, 300e9, 25e9, 8, 300e9, _A100),
    Interconnect("a100-80gb-pcie", 0, 0, 31.5e9, 25e9, 8, 31.5e9, _PCIE_4),
    Interconnect("h100", 0, 0, 450e9, 50e9, 8, 450e9, _H100),
    Interconnect("h100-pcie", 0, 0, 63e9, 50e9, 8, 63e9, _PCIE_5),
    Interconnect("h200", 0, 0, 450e9, 50e9, 8, 450e9, _H200),
    Interconnect("b200", 0, 0, 900e9, 50e9, 8, 900e9, _B200),
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a device is.

    Attributes:
      slice: number of its slice; of its node, for GPUs.
      chip: coordinates of its chip in the torus; empty for GPUs.
      core: number of the device on its chip, or in its node.
    """

    slice: int
    chip: tuple[int, ...]
    core: int


def interconnect_of(chip: str) -> Interconnect:
    """The links of a chip of ``chips.CHIPS``."""
    return next(links for links in INTERCONNECTS if links.chip == chip)


def group_bandwidth(links: Interconnect, torus: Sequence[int], group: Sequence[Place]) -> float:
    """Bytes/s that one device of a group can send, and receive, while the group passes data round.

    A group on several slices or nodes is as fast as the network: all devices that the group has in one slice send at
    once. Where a group takes every s-th chip of a dimension, s groups share its links, as the groups of one mesh axis
    do. A group that is no grid of chips is charged one link.

    Args:
      links: of the chip.
      torus: chips along every dimension of one slice; empty for GPUs.
      group: at least two devices.
    """
    slices = {place.slice for place in group}
    if len(slices) > 1:
        return min(links.network_bandwidth * len(group) / len(slices), _inside(links))
    chips = {place.chip for place in group}
    if len(chips) == 1:
        return links.node_bandwidth
    sides = [sorted({chip[axis] for chip in chips}) for axis in range(len(torus))]
    steps = [{after - before for before, after in itertools.pairwise(side)} for side in sides]
    if math.prod(map(len, sides)) != len(chips) or any(len(step) > 1 for step in steps):
        return links.link_bandwidth
    total = 0.0
    for length, side, step in zip(torus, sides, steps, strict=True):
        if step:
            (apart,) = step
            closed = len(side) * apart == length and length % links.ring == 0
            total += links.link_bandwidth * (2 if closed else 1) / apart
    return total


def _inside(links: Interconnect) -> float:
    """The most that a device moves inside its slice or node."""
    return links.node_bandwidth if not links.dimensions else 2 * links.dimensions * links.link_bandwidth
