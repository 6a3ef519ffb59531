"""What one jax device of each accelerator can do at best: the denominators of utilisation and the budgets of tiles.

All figures are for **one jax device**, the unit that ``jax.devices()`` counts: a whole chip on TPU v4 to v6e and on
GPUs, one of the two TensorCores of a chip on TPU7x. Peaks are dense bfloat16; vendor figures that include 2:4 sparsity
are twice as high and are never used. An accelerator that is not listed has no peak, and utilisation is not reported.
"""

from __future__ import annotations

import dataclasses

KIB = 2**10
MIB = 2**20
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator, as one jax device sees it.

    Attributes:
      name: short name, as users write it.
      device_kinds: the values of ``jax.Device.device_kind`` that mean this chip.
      peak_flops: dense bfloat16 multiply-adds counted as two, in FLOP/s.
      memory_bytes: capacity of the device memory (HBM), in bytes.
      memory_bandwidth: peak bandwidth of the device memory, in bytes/s.
      kernel_memory_bytes: on-chip memory that one kernel program can hold, in bytes: VMEM of one TensorCore on TPU,
        the largest shared memory of one thread block on GPU.
      source: where the figures come from.
    """

    name: str
    device_kinds: tuple[str, ...]
    peak_flops: float
    memory_bytes: int
    memory_bandwidth: float
    kernel_memory_bytes: int
    source: str


_TPU = "Google Cloud TPU system architecture pages; VMEM: JAX's Pallas TPU hardware reference"
_A100 = "NVIDIA A100 Tensor Core GPU datasheet; shared memory: CUDA programming guide, compute capability 8.0"
_H100 = "NVIDIA H100 Tensor Core GPU datasheet, half of its sparse peak; shared memory: CUDA programming guide, 9.0"
_H200 = "NVIDIA H200 Tensor Core GPU datasheet, half of its sparse peak; shared memory: CUDA programming guide, 9.0"
_B200 = "NVIDIA DGX B200 datasheet, an eighth, half of its sparse peak; shared memory: CUDA programming guide, 10.0"

CHIPS: tuple[Chip, ...] = (
    Chip("v4", ("TPU v4",), 275e12, 32 * GIB, 1228e9, 16 * MIB, _TPU),
    Chip("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16 * GIB, 819e9, 128 * MIB, _TPU),
    Chip("v5p", ("TPU v5", "TPU v5p"), 459e12, 95 * GIB, 2765e9, 64 * MIB, _TPU),
    Chip("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32 * GIB, 1638e9, 128 * MIB, _TPU),
    # The data sheet's chip (2307 TFLOP/s, 192 GiB, 7380 GB/s) is two devices.
    Chip("tpu7x", ("TPU7x",), 1153.5e12, 96 * GIB, 3690e9, 64 * MIB, _TPU),
    Chip("a100-40gb", ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"), 312e12, 40 * GIB, 1555e9, 163 * KIB, _A100),
    Chip("a100-80gb", ("NVIDIA A100-SXM4-80GB",), 312e12, 80 * GIB, 2039e9, 163 * KIB, _A100),
    Chip("a100-80gb-pcie", ("NVIDIA A100 80GB PCIe",), 312e12, 80 * GIB, 1935e9, 163 * KIB, _A100),
    Chip("h100", ("NVIDIA H100 80GB HBM3",), 989.5e12, 80 * GIB, 3350e9, 227 * KIB, _H100),
    Chip("h100-pcie", ("NVIDIA H100 PCIe",), 756.5e12, 80 * GIB, 2000e9, 227 * KIB, _H100),
    Chip("h200", ("NVIDIA H200",), 989.5e12, 141 * 10**9, 4800e9, 227 * KIB, _H200),
    Chip("b200", ("NVIDIA B200",), 2250e12, 180 * 10**9, 8000e9, 227 * KIB, _B200),
)


def chip_named(name: str) -> Chip:
    """The chip of that short name.

    Raises:
      ValueError: no such chip; the message lists the names.
    """
    by_name = {chip.name: chip for chip in CHIPS}
    if name not in by_name:
        raise ValueError(f"chip={name!r}: unknown; use one of {', '.join(by_name)}")
    return by_name[name]


def chip_for(device_kind: str) -> Chip | None:
    """The chip behind ``jax.Device.device_kind``, or None for a CPU or an accelerator that is not listed."""
    return next((chip for chip in CHIPS if device_kind in chip.device_kinds), None)
