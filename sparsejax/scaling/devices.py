"""Shipped sizes as they are trained: counts, bytes, executed FLOPs and hours, as ``models.accounting`` has them."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from sparsejax.config import ConfigError
from sparsejax.files.text import one_line
from sparsejax.models.accounting import WeightCount, dense_weights, executed_flops, memory, parameters
from sparsejax.models.sizes import SIZES, Size, legal, rounded_mlp

if TYPE_CHECKING:  # at run time it would import jax, and the answer wait for it
    from sparsejax.hardware.systems import System

# Share of a device's dense bfloat16 peak that a well-fed run reaches; an assumption, stated wherever hours are.
ASSUMED_UTILISATION = 0.4
# Share of a device's memory that training state may fill; the rest is for activations and the compiler.
STATE_SHARE = 0.7
# float32 value, gradient and two moments.
_BYTES_PER_PARAMETER = 16
_SEQUENCE_LENGTH = 1024
# Blocks for which TPU kernels issue about what the dense product does, by chip: docs/PERFORMANCE.md.
_KERNEL_BLOCK = {"v5e": 128, "v5p": 128, "v6e": 256, "tpu7x": 256}
# The block of configs/llama.py, to which the MLP of a dense run is rounded too.
_DENSE_BLOCK = 16


@dataclasses.dataclass(frozen=True)
class Realised:
    """A shipped size at a density, as its blocks allow it.

    Attributes:
      size: name of the size.
      block: side of a block; 1 where dense.
      density: share of active weights among the sparse parts, realised.
      total: parameters of the dense twin.
      active: parameters that exist.
      embedding: parameters of embedding and head, which are dense.
      skips: whether the program visits active blocks only.
      mlp: inner width that the run uses.
      weights: its seven kinds.
    """

    size: str
    block: int
    density: float
    total: int
    active: int
    embedding: int
    skips: bool
    mlp: int
    weights: tuple[WeightCount, ...]

    @functools.cached_property
    def state_bytes(self) -> int:
        """Bytes of training state, all devices together."""
        return memory(SIZES[self.size].shape(self.mlp), self.weights, rewired=self.density < 1).total.total

    @functools.cached_property
    def executed(self) -> int:
        """FLOPs per token of a train step, as the compiled program executes them."""
        how = {weight.name: "pallas_tpu" if self.skips else "transient" for weight in self.weights}
        return executed_flops(SIZES[self.size].shape(self.mlp), self.weights, _SEQUENCE_LENGTH, how, "none").train

    def counted(self, convention: str) -> float:
        """Parameters as a law counts them, see ``rows.Convention``; counts do not move, so means are counts."""
        return {
            "total": self.total,
            "total_times_density": self.total * self.density,
            "active_non_embedding": self.active - self.embedding,
            "nonzero": self.active - self.embedding,
        }.get(convention, self.active)

    def paid(self, convention: str) -> float:
        """Parameters that a token costs six FLOPs each: those counted, or of the dense twin where zeros are multiplied.

        A law of dense twins counts more than a program that skips zeros multiplies.
        """
        if not self.skips:
            return self.total - (self.embedding if convention in ("active_non_embedding", "nonzero") else 0)
        return self.active if convention == "total" else self.counted(convention)


def kernel_block(system: System | None) -> int:
    """Side of the blocks to train with: the chip's kernel's, or 128."""
    return _KERNEL_BLOCK.get(system.chip.name, 128) if system is not None and system.chip is not None else 128


def skips_zeros(system: System | None) -> bool:
    """Whether ``auto`` runs a kernel that visits active blocks only; without a named system, it is assumed to."""
    return system is None or (system.chip is not None and system.chip.name in _KERNEL_BLOCK)


def most_state_bytes(system: System) -> float:
    """Bytes of training state that fit all devices of a system together, fully sharded."""
    if system.chip is None:
        raise ConfigError(
            f"--hardware={system.name}: advice needs a device with known memory, such as v5p:4x4x4 or h100:8"
        )
    return system.chip.memory_bytes * system.devices * STATE_SHARE


def most_parameters(system: System) -> float:
    """Active parameters whose training state fits all devices of a system together, fully sharded."""
    return most_state_bytes(system) / _BYTES_PER_PARAMETER


@functools.cache
def realised(name: str, density: float, block: int, skips: bool) -> Realised:
    """A shipped size at a density, with the largest square blocks of 16 up to ``block`` that it has.

    Raises:
      ConfigError: no such size.
    """
    if name not in SIZES:
        raise ConfigError(f"size={one_line(name)}: unknown; use one of {', '.join(SIZES)}")
    size = SIZES[name]
    side = _side(size, block)
    shape = size.shape(rounded_mlp(size.mlp, (side, side), 1))
    weights = dense_weights(shape)
    if density < 1:
        weights = tuple(_thinned(weight, (side, side), density) for weight in weights)
    else:
        shape = size.shape(rounded_mlp(size.mlp, (_DENSE_BLOCK, _DENSE_BLOCK), 1))
        weights = dense_weights(shape)
    count = parameters(shape, weights)
    return Realised(
        size=name,
        block=side if density < 1 else 1,
        density=count.density,
        total=count.total,
        active=count.active,
        embedding=count.embedding,
        skips=skips,
        mlp=shape.mlp,
        weights=weights,
    )


def hours(run: Realised, tokens: float, system: System) -> float:
    """Hours of a run on a system at ``ASSUMED_UTILISATION`` of its peak, by executed FLOPs."""
    return run.executed * tokens / flops_per_hour(system)


def flops_per_hour(system: System) -> float:
    """FLOPs that a system executes in an hour at ``ASSUMED_UTILISATION`` of its peak."""
    assert system.chip is not None
    return system.chip.peak_flops * system.devices * ASSUMED_UTILISATION * 3600


@functools.cache
def _side(size: Size, block: int) -> int:
    sides = [cut.block[0] for cut in legal(size) if cut.shards == 1 and cut.block[0] == cut.block[1]]
    return max(side for side in sides if 16 <= side <= block)


def _thinned(weight: WeightCount, block: tuple[int, int], density: float) -> WeightCount:
    cells = weight.elements // (block[0] * block[1])
    count = max(round(cells * density), 1)
    return dataclasses.replace(weight, block=block, count=count, capacity=count)
