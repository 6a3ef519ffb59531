"""Rows of token files onto devices: each process reads only the rows that its devices hold.

Axes: B rows of a batch over all processes, T tokens of a row, P equal parts of a batch, R rows that this process reads.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sparsejax.data.pipeline import WHOLE

# What the programs take as a batch: an array of this host, or one that is spread over devices of all hosts.
Batch = np.ndarray | jax.Array


class Feed:
    """Which parts of each batch this process reads, and how they become one global array.

    Attributes:
      parts: their numbers, ascending; see ``data.pipeline``.
      of: P, how many parts a batch has.
    """

    def __init__(self, sharding: NamedSharding | None, shape: tuple[int, int]) -> None:
        """For batches of ``shape`` (B, T) under ``sharding``; None is one device, which takes them as they are."""
        self._sharding, self._shape = sharding, shape
        self._part_of: dict[jax.Device, int] = {}
        self.parts: tuple[int, ...] = WHOLE
        self.of = 1
        if sharding is None:
            return
        rows = sharding.shard_shape(shape)[0]
        for device, index in sharding.addressable_devices_indices_map(shape).items():
            assert index is not None, "a named sharding says for every device what it holds"
            # An axis that is not cut has slice(None).
            self._part_of[device] = (index[0].start or 0) // rows
        self.parts, self.of = tuple(sorted(set(self._part_of.values()))), shape[0] // rows

    def place(self, rows_RT: np.ndarray) -> Batch:
        """The global batch ``[B, T]`` from the parts that this process read."""
        if self._sharding is None:
            return rows_RT
        parts = dict(zip(self.parts, np.split(rows_RT, len(self.parts)), strict=True))
        pieces = [jax.device_put(parts[part], device) for device, part in self._part_of.items()]
        return jax.make_array_from_single_device_arrays(self._shape, self._sharding, pieces)

    def everywhere(self, array: jax.Array) -> jax.Array:
        """An argument of every step that is equal in all processes, copied to every device once."""
        if self._sharding is None:
            return array
        whole = NamedSharding(self._sharding.mesh, PartitionSpec())
        values = np.asarray(array)
        return jax.make_array_from_callback(values.shape, whole, lambda index: values[index])


def on_host(tree: Any) -> Any:
    """Arguments that are equal in all processes, as NumPy has them: a program on devices of several takes no others."""
    return jax.tree.map(np.asarray, tree)
