"""Slices of TPUs: ``v5p:4x4x4`` as sparsejax writes it, and what Google Cloud and GKE call the same."""

from __future__ import annotations

import dataclasses
import math

from launch.exit_codes import LaunchError


@dataclasses.dataclass(frozen=True)
class Generation:
    """One kind of TPU.

    Attributes:
      prefix: of the accelerator type.
      units_per_chip: what the number in an accelerator type counts: 2 for TensorCores, 1 for chips.
      runtime: image of the virtual machines, empty where only GKE has this TPU.
      gke_label: value of the node label ``cloud.google.com/gke-tpu-accelerator``.
      shapes: the shape of every accelerator type. The TPU API takes no other: an accelerator type is only a number.
      one_host: the most chips of a slice that is a single virtual machine.
    """

    prefix: str
    units_per_chip: int
    runtime: str
    gke_label: str
    shapes: tuple[str, ...]
    one_host: int


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")

# Source: the pages of each TPU version in the Cloud TPU documentation, and GKE's list of TPU node labels.
GENERATIONS = {
    "v4": Generation("v4", 2, "tpu-ubuntu2204-base", "tpu-v4-podslice", _CUBES, 4),
    "v5e": Generation("v5litepod", 1, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", _FLAT, 8),
    "v5p": Generation("v5p", 2, "v2-alpha-tpuv5", "tpu-v5p-slice", (*_CUBES, "16x16x16"), 4),
    "v6e": Generation("v6e", 1, "v2-alpha-tpuv6e", "tpu-v6e-slice", _FLAT, 8),
    "tpu7x": Generation("tpu7x", 2, "", "tpu7x", _CUBES, 4),
}

# A pod of GKE has one virtual machine of four chips, also where the TPU API would give one of eight.
CHIPS_PER_POD = 4


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips that one fast network joins.

    Attributes:
      generation: key of ``GENERATIONS``.
      shape: chips along each axis, such as ``4x4x4``.
    """

    generation: str
    shape: str

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(int(side) for side in self.shape.split("x"))

    @property
    def hardware(self) -> str:
        """The name ``sparsejax check --hardware`` takes."""
        return f"{self.generation}:{self.shape}"

    @property
    def accelerator_type(self) -> str:
        """The name the TPU API takes."""
        kind = GENERATIONS[self.generation]
        return f"{kind.prefix}-{self.chips * kind.units_per_chip}"

    @property
    def many_hosts(self) -> bool:
        """Whether several virtual machines hold it."""
        return self.chips > GENERATIONS[self.generation].one_host

    @property
    def pods(self) -> int:
        """Pods of GKE that hold it."""
        return max(1, self.chips // CHIPS_PER_POD)


def parse_slice(text: str) -> Slice:
    """``v5p:4x4x4`` as a slice.

    Raises:
      LaunchError: no such TPU, or no accelerator type has that shape.
    """
    name, _, shape = text.partition(":")
    if name not in GENERATIONS:
        raise LaunchError(
            f"--hardware={text}: no such TPU; write one of {', '.join(GENERATIONS)} and a shape: v5p:4x4x4"
        )
    shapes = GENERATIONS[name].shapes
    if shape not in shapes:
        raise LaunchError(f"--hardware={text}: no accelerator type has this shape; {name} comes as {', '.join(shapes)}")
    return Slice(name, shape)
