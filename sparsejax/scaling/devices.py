"""What a run costs on real devices: bytes, executed FLOPs and hours, by the counts of ``models.accounting``."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from sparsejax.config import ConfigError
from sparsejax.models.accounting import WeightCount, dense_weights, executed_flops, memory, parameters
from sparsejax.models.sizes import SIZES, Size, legal

if TYPE_CHECKING:  # at run time it would import jax, and the answer wait for it
    from sparsejax.hardware.systems import System

# Share of a device's dense bfloat16 peak that a well-fed run reaches; an assumption, stated wherever hours are.
ASSUMED_UTILISATION = 0.4
# Share of a device's memory that training state may fill; the rest is for activations and the compiler.
_STATE_SHARE = 0.7
# float32 value, gradient and two moments.
_BYTES_PER_PARAMETER = 16
_SEQUENCE_LENGTH = 1024
# Blocks for which TPU kernels issue about what the dense product does, by chip: docs/PERFORMANCE.md.
_KERNEL_BLOCK = {"v5e": 128, "v5p": 128, "v6e": 256, "tpu7x": 256}


@dataclasses.dataclass(frozen=True)
class Realised:
    """A shipped size at a density, as its blocks allow it.

    Attributes:
      size: name of the size.
      block: side of a block; 1 where dense.
      density: share of active weights among the sparse parts, realised.
      total: parameters of the dense twin.
      active: parameters that exist.
      state_bytes: of training state, all devices together.
      executed: FLOPs per token of a train step, as the compiled program executes them.
    """

    size: str
    block: int
    density: float
    total: int
    active: int
    state_bytes: int
    executed: int


def kernel_block(system: System | None) -> int:
    """Side of the blocks to train with: the chip's kernel's, or 128."""
    return _KERNEL_BLOCK.get(system.chip.name, 128) if system is not None and system.chip is not None else 128


def skips_zeros(system: System | None) -> bool:
    """Whether ``auto`` runs a kernel that visits active blocks only; without a named system, it is assumed to."""
    return system is None or (system.chip is not None and system.chip.name in _KERNEL_BLOCK)


def most_parameters(system: System) -> float:
    """Active parameters whose training state fits all devices of a system together, fully sharded."""
    if system.chip is None:
        raise ConfigError(
            f"--hardware={system.name}: advice needs a device with known memory, such as v5p:4x4x4 or h100:8"
        )
    return system.chip.memory_bytes * system.devices * _STATE_SHARE / _BYTES_PER_PARAMETER


def nearest(total: float, density: float, block: int, skips: bool) -> Realised:
    """The shipped size whose dense twin is nearest to ``total`` parameters, in the ratio, with blocks of this side."""
    name = min(SIZES, key=lambda one: abs(math.log(_dense_total(SIZES[one]) / total)))
    size = SIZES[name]
    sides = [
        cut for cut in legal(size) if cut.shards == 1 and cut.block[0] == cut.block[1] and 16 <= cut.block[0] <= block
    ]
    cut = max(sides, key=lambda one: one.block[0])
    shape = size.shape(cut.mlp if density < 1 else size.mlp)
    weights = dense_weights(shape)
    if density < 1:
        weights = tuple(_thinned(weight, cut.block, density) for weight in weights)
    count = parameters(shape, weights)
    how = "pallas_tpu" if skips else "transient"
    flops = executed_flops(shape, weights, _SEQUENCE_LENGTH, {weight.name: how for weight in weights}, "none")
    return Realised(
        size=name,
        block=cut.block[0] if density < 1 else 1,
        density=count.density,
        total=count.total,
        active=count.active,
        state_bytes=memory(shape, weights, rewired=density < 1).total.total,
        executed=flops.train,
    )


def hours(realised: Realised, tokens: float, system: System) -> float:
    """Hours of a run on a system at ``ASSUMED_UTILISATION`` of its peak, by executed FLOPs."""
    assert system.chip is not None
    return realised.executed * tokens / (system.chip.peak_flops * system.devices * ASSUMED_UTILISATION) / 3600


def _dense_total(size: Size) -> int:
    shape = size.shape(size.mlp)
    return parameters(shape, dense_weights(shape)).total


def _thinned(weight: WeightCount, block: tuple[int, int], density: float) -> WeightCount:
    cells = weight.elements // (block[0] * block[1])
    count = max(round(cells * density), 1)
    return dataclasses.replace(weight, block=block, count=count, capacity=count)
