"""A request to stop that reached one process, known to all processes at the same step.

Each process puts its exit code (0 while nothing was asked) into its elements of an array that is cut over all devices;
a program of a single maximum tells everybody. It runs on the devices in the order of the steps, so every process reads
the same answer at the same place of its own program, and all of them save the same step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparsejax.training.interrupts import Interrupts


class SharedInterrupts:
    """``Interrupts`` of all processes as one; where there is one process, exactly its own.

    Attributes:
      exit_code: 0 until ``requested`` said yes; the largest of all processes' codes then.
    """

    def __init__(self, own: Interrupts, processes: int) -> None:
        """``own`` are this process's signals; every process makes the same calls in the same order."""
        self.exit_code = 0
        self._own, self._processes = own, processes
        self._asked: jax.Array | None = None
        self._devices = Mesh(np.array(jax.devices()), ("devices",))
        self._cut = NamedSharding(self._devices, PartitionSpec("devices"))
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(self._devices, PartitionSpec()))

    def requested(self) -> bool:
        """Whether the run should save and stop; collective.

        With several processes the answer is that to the question before, so that nobody waits for it: a request is
        followed one step later.
        """
        if self.exit_code:
            return True
        if self._processes == 1:
            self.exit_code = self._own.exit_code
            return self.exit_code != 0
        asked, self._asked = self._asked, self._largest(self._codes())
        if asked is not None:
            self.exit_code = int(asked)
        return self.exit_code != 0

    def _codes(self) -> jax.Array:
        code = np.array([self._own.exit_code], np.int32)
        return jax.make_array_from_callback((len(jax.devices()),), self._cut, lambda _: code)
