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
        self._own = own
        self._largest = _Largest() if processes > 1 else None
        self._asked: jax.Array | None = None

    def requested(self) -> bool:
        """Whether the run should save and stop; collective.

        With several processes the answer is that to the question before, so that nobody waits for it: a request is
        followed one step later.
        """
        if self._largest is None:
            self.exit_code = self._own.exit_code
        elif self.exit_code == 0:
            asked, self._asked = self._asked, self._largest(self._own.exit_code)
            self.exit_code = 0 if asked is None else int(asked)
        return self.exit_code != 0


class _Largest:
    """The largest of one integer of every process, found on the devices without waiting for it."""

    def __init__(self) -> None:
        devices = Mesh(np.array(jax.devices()), ("devices",))
        self._cut = NamedSharding(devices, PartitionSpec("devices"))
        self._program = jax.jit(jnp.max, out_shardings=NamedSharding(devices, PartitionSpec()))

    def __call__(self, number: int) -> jax.Array:
        own = np.array([number], np.int32)
        spread = jax.make_array_from_callback((len(jax.devices()),), self._cut, lambda _: own)
        largest: jax.Array = self._program(spread)
        return largest
