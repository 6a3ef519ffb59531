"""TPUs that are not here, as their compiler sees them: programs are compiled for a described topology on any host.

Needs libtpu (the ``tpu`` extra) and no TPU. Its lock allows one process of a host at a time.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from sparsejax.hardware.chips import Chip
from sparsejax.hardware.interconnect import Place
from sparsejax.hardware.systems import EXAMPLES, System

# The smallest topology of each chip that the compiler accepts without further options.
_SMALLEST = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2", "tpu7x": "tpu7x:2x2x1"}

_ATTEMPTS, _SECONDS_BETWEEN = 60, 2.0


# Two descriptions of one topology are two sets of devices to JAX, and a program has one.
@functools.cache
def described_device(chip: Chip) -> jax.Device:
    """A device of that TPU to compile for; it holds no arrays and runs nothing.

    Waits for a while if another process of this machine holds libtpu's lock.

    Raises:
      ValueError: the chip is no TPU.
      RuntimeError: the lock was not released.
    """
    if chip.name not in _SMALLEST:
        raise ValueError(f"chip={chip.name}: no TPU; use one of {', '.join(_SMALLEST)}")
    return _describe(_SMALLEST[chip.name])[0]


@functools.cache
def described_devices(system: System) -> tuple[jax.Device, ...]:
    """All devices of a TPU system to compile for, in the order of their numbers; waits like ``described_device``.

    Raises:
      ValueError: no TPU, or a shape that its compiler does not know, in one line with examples.
      RuntimeError: the lock was not released, or there is no TPU compiler here.
    """
    if not system.torus:
        raise ValueError(f"{system.name}: no TPU")
    options: dict[str, Any] = {"num_slices": system.slices} if system.slices > 1 else {}
    if system.chip is not None and system.chip.name == "v4":
        # As JAX runs it: the two cores of a chip are one device.
        options["chip_config_name"] = "megacore"
    if set(system.shape) == {1}:
        # A host has four chips, the compiler thinks, unless it is told.
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return _describe(system.slice_name, **options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{system.name}: {reason}; legal are for example {EXAMPLES}") from error


def _describe(name: str, **options: Any) -> tuple[jax.Device, ...]:
    # Else libtpu asks a metadata server, which only a cloud machine has, who it is.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    for _ in range(_ATTEMPTS):
        try:
            topology = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
        except jax.errors.JaxRuntimeError as error:
            if "lockfile" not in str(error):
                raise
            time.sleep(_SECONDS_BETWEEN)
        else:
            return tuple(topology.devices)
    raise RuntimeError("the TPU compiler is in use by another process of this machine: run this when that has ended")


def place_of(device: Any) -> Place:
    """Where a TPU device is, one that is present or one of a described topology."""
    return Place(device.slice_index if hasattr(device, "slice_index") else 0, tuple(device.coords), device.core_on_chip)


def on_device(tree: object, device: jax.Device) -> object:
    """The shapes and dtypes of a tree of arrays, placed on a described device: arguments of ``jit(f).lower``."""
    sharding = SingleDeviceSharding(device)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
