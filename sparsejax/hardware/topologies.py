"""TPUs that are not here, as their compiler sees them: programs are compiled for a described topology on any host.

Needs libtpu (the ``tpu`` extra) and no TPU. Its lock allows one process of a host at a time.
"""

from __future__ import annotations

import functools
import os
import time

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from sparsejax.hardware.chips import Chip

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
    # Else libtpu asks a metadata server, which only a cloud machine has, who it is.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    for _ in range(_ATTEMPTS):
        try:
            topology = topologies.get_topology_desc(platform="tpu", topology_name=_SMALLEST[chip.name])
        except jax.errors.JaxRuntimeError as error:
            if "lockfile" not in str(error):
                raise
            time.sleep(_SECONDS_BETWEEN)
        else:
            device: jax.Device = topology.devices[0]
            return device
    raise RuntimeError("the TPU compiler is in use by another process of this machine: run this when that has ended")


def on_device(tree: object, device: jax.Device) -> object:
    """The shapes and dtypes of a tree of arrays, placed on a described device: arguments of ``jit(f).lower``."""
    sharding = SingleDeviceSharding(device)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
