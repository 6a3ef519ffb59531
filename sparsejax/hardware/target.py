"""What a program is compiled for: an argument of whoever chooses an implementation, never asked of the host.

The host that compiles is not always the device that runs: a laptop plans a pod run with the pod's own compiler.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sparsejax.hardware.chips import chip_for

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True)
class Target:
    """The devices of one program.

    Attributes:
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``, as ``jax.Device.platform`` says it.
      chip: name of the device in ``hardware.chips.CHIPS``; None for a CPU and for an accelerator not listed there.
    """

    platform: str
    chip: str | None


CPU = Target("cpu", None)


def target_of(device: jax.Device) -> Target:
    """The target of programs for a device, one that is present or one of a described topology."""
    chip = chip_for(device.device_kind)
    return Target(device.platform, chip.name if chip is not None else None)
