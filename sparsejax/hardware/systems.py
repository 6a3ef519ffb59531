"""Names of whole machines: ``v5p:4x4x4``, ``2xv5e:16x16`` (slices), ``h200:64`` and ``cpu:8`` (simulated devices)."""

from __future__ import annotations

import dataclasses
import math
import re

from sparsejax.hardware.chips import CHIPS, Chip
from sparsejax.hardware.interconnect import Interconnect, Place, interconnect_of
from sparsejax.hardware.target import Target

EXAMPLES = "v5e:16x16, v5p:4x4x4, v6e:4x4, tpu7x:2x2x4, 2xv5e:16x16 (two slices), h100:8, h200:64, cpu:8"

_NAME = re.compile(r"(?:(?P<slices>[1-9]\d*)x)?(?P<chip>[a-z][a-z0-9-]*):(?P<shape>[1-9]\d*(?:x[1-9]\d*)*)")
# More simulated devices than this take minutes to start.
_MOST_CPU_DEVICES = 64


@dataclasses.dataclass(frozen=True)
class System:
    """Some devices and how they are joined.

    Attributes:
      chip: what the devices are; None for devices that a CPU pretends to have.
      slices: TPU slices; 1 for all else.
      shape: chips along every dimension of one slice, ``(devices,)`` for all else.
    """

    chip: Chip | None
    slices: int
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """As users write it."""
        return f"{self.slices}x{self.slice_name}" if self.slices > 1 else self.slice_name

    @property
    def slice_name(self) -> str:
        """The name of one slice; TPU compilers know it."""
        return f"{self.chip.name if self.chip is not None else 'cpu'}:{'x'.join(map(str, self.shape))}"

    @property
    def target(self) -> Target:
        """What its programs are compiled for."""
        if self.chip is None:
            return Target("cpu", None)
        return Target("tpu" if self.torus else "gpu", self.chip.name)

    @property
    def links(self) -> Interconnect | None:
        """How its devices are joined; None for a CPU."""
        return interconnect_of(self.chip.name) if self.chip is not None else None

    @property
    def torus(self) -> tuple[int, ...]:
        """Chips along every dimension of a slice; empty where there is no torus."""
        return self.shape if self.links is not None and self.links.dimensions else ()

    @property
    def devices(self) -> int:
        """Number of jax devices."""
        on_chip = self.links.node if self.links is not None and self.torus else 1
        return self.slices * math.prod(self.shape) * on_chip

    def gpu_places(self) -> tuple[Place, ...]:
        """Where GPUs are, in the order of their numbers: node after node."""
        assert self.links is not None and not self.torus
        return tuple(Place(number // self.links.node, (), number % self.links.node) for number in range(self.devices))


def parse_system(name: str) -> System:
    """The machine of that name: ``<chip>:<shape>``, or ``<slices>x<chip>:<shape>`` for TPU.

    A TPU's shape counts chips along its dimensions, as its product page does; that of GPUs and of ``cpu`` is their
    number.

    Raises:
      ValueError: no such chip or shape, in one line with examples.
    """
    found = _NAME.fullmatch(name)
    if not found:
        raise _refusal(name, "not <chip>:<shape>")
    kind, slices = found["chip"], int(found["slices"] or 1)
    shape = tuple(map(int, found["shape"].split("x")))
    if kind == "cpu":
        if slices > 1 or len(shape) > 1 or shape[0] > _MOST_CPU_DEVICES:
            raise _refusal(name, f"a CPU simulates 1 to {_MOST_CPU_DEVICES} devices: cpu:8")
        return System(None, 1, shape)
    by_name = {chip.name: chip for chip in CHIPS}
    if kind not in by_name:
        raise _refusal(name, f"{kind} is none of cpu, {', '.join(by_name)}")
    links = interconnect_of(kind)
    if links.dimensions and len(shape) != links.dimensions:
        raise _refusal(name, f"{kind} has {links.dimensions} dimensions of chips")
    if not links.dimensions and (slices > 1 or len(shape) > 1):
        raise _refusal(name, f"of {kind} write the number: {kind}:8")
    return System(by_name[kind], slices, shape)


def _refusal(name: str, reason: str) -> ValueError:
    return ValueError(f"{name}: {reason}; legal are for example {EXAMPLES}")
