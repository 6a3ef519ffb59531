"""Several processes that train one run: how they find each other, agree, and end together.

Every process runs the same program on the same config; JAX joins their devices into one list. Process 0 alone writes
logs; everything that is decided from what only one process knows (a wrong flag, a signal, a broken file) is decided by
all of them together, because a process that turns aside alone leaves the others waiting in a collective for ever.
"""

from __future__ import annotations

import dataclasses
import hashlib
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from sparsejax.config import ConfigError
from sparsejax.training import lost_peers
from sparsejax.training.platform import start_platform

Result = TypeVar("Result")

# Bytes of an error that one process tells the others.
_MESSAGE = 1000
_MOST_SECONDS, _MOST_PROCESSES = 10**6, 2**20
# Waited before joining is tried again: a metadata server that failed once is usually back by then.
_RETRY_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Launch:
    """How this process was started.

    Attributes:
      distributed: find the other processes as TPU pods, SLURM, Kubernetes or Open MPI describe them.
      coordinator: ``HOST:PORT`` of process 0, or "" if they are found or there are none.
      num_processes: how many there are, None unless ``coordinator`` is given.
      process_id: which of them this is, None unless ``coordinator`` is given.
      init_timeout: seconds to wait for all processes at the start.
      heartbeat_timeout: seconds without a sign of life after which a process counts as lost.
    """

    distributed: bool
    coordinator: str
    num_processes: int | None
    process_id: int | None
    init_timeout: int
    heartbeat_timeout: int

    def __post_init__(self) -> None:
        """Raises ``ConfigError`` for flags that contradict each other."""
        explicit = {
            "--coordinator": self.coordinator or None,
            "--num_processes": self.num_processes,
            "--process_id": self.process_id,
        }
        missing = [name for name, value in explicit.items() if value is None]
        if self.distributed and len(missing) < len(explicit):
            given = ", ".join(name for name in explicit if name not in missing)
            raise ConfigError(
                f"--distributed: finds the processes by itself, {given} names them; give one or the other"
            )
        if 0 < len(missing) < len(explicit):
            raise ConfigError(
                f"{', '.join(missing)}: missing; --coordinator, --num_processes, --process_id go together"
            )
        for name, seconds in (("--init_timeout", self.init_timeout), ("--heartbeat_timeout", self.heartbeat_timeout)):
            if not 1 <= seconds <= _MOST_SECONDS:
                raise ConfigError(f"{name}={seconds}: must be 1 to {_MOST_SECONDS} seconds")
        if not missing:
            self._check_explicit()

    def _check_explicit(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ConfigError(f"--coordinator={self.coordinator}: must be HOST:PORT of process 0, as 10.0.0.2:8476")
        assert self.num_processes is not None and self.process_id is not None
        if not 1 <= self.num_processes <= _MOST_PROCESSES:
            raise ConfigError(f"--num_processes={self.num_processes}: must be 1 to {_MOST_PROCESSES}")
        if not 0 <= self.process_id < self.num_processes:
            raise ConfigError(
                f"--process_id={self.process_id}: must be 0 to {self.num_processes - 1}, as --num_processes="
                f"{self.num_processes}"
            )

    @property
    def joins(self) -> bool:
        """Whether there are other processes to join."""
        return self.distributed or bool(self.coordinator)


class Cluster:
    """The processes of a run, seen from one of them. With one process every method does its local part only.

    The methods are collective: all processes call the same ones in the same order.

    Attributes:
      index: number of this process; process 0 writes.
      count: how many processes there are.
      name: "process <index> of <count>".
    """

    def __init__(self) -> None:
        """The processes that JAX knows of; see ``joined``."""
        self.index, self.count = jax.process_index(), jax.process_count()
        self.name = f"process {self.index} of {self.count}"

    @property
    def writes(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.index == 0

    def gather(self, text: str) -> list[str]:
        """A text of every process, in the order of their numbers; cut after 1000 bytes."""
        if self.count == 1:
            return [text]
        own = np.zeros(_MESSAGE, np.uint8)
        encoded = np.frombuffer(text.encode()[:_MESSAGE], np.uint8)
        own[: encoded.size] = encoded
        return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in multihost_utils.process_allgather(own)]

    def together(self, action: Callable[[], Result]) -> Result:
        """What ``action`` gives here; if it raised ``ConfigError`` in any process, every process raises.

        Args:
          action: local work only, no collective: where one process fails in it, the others would wait.

        Raises:
          SharedError: this process's own error, or that of the lowest process that had one.
        """
        if self.count == 1:
            return action()
        own, result = "", None
        try:
            result = action()
        except ConfigError as error:
            own = str(error)
        for index, found in enumerate(self.gather(own)):
            if found:
                raise lost_peers.SharedError(own or f"process {index}: {found}")
        return result  # type: ignore[return-value]

    def first(self, problem: str) -> str:
        """The problem of the lowest process that has one; "" if none has."""
        return next((found for found in self.gather(problem) if found), "")

    def check_equal(self, facts: Mapping[str, str]) -> None:
        """Raise ``SharedError`` naming the first of ``facts`` in which a process differs from process 0."""
        for name, value in facts.items():
            digests = self.gather(hashlib.sha256(value.encode()).hexdigest())
            for index, digest in enumerate(digests):
                if digest != digests[0]:
                    raise lost_peers.SharedError(
                        f"{name}: process {index} has another one than process 0; start all with the same"
                    )

    def wait(self, name: str) -> None:
        """Return when every process is here."""
        if self.count > 1:
            multihost_utils.sync_global_devices(name)

    def line(self) -> str:
        """One line about this process and its devices, for the start of its log."""
        local, everywhere = jax.local_devices(), jax.devices()
        hosts = len(set(self.gather(socket.gethostname())))
        return (
            f"{self.name} on {hosts} host{'s' if hosts > 1 else ''} ({socket.gethostname()}): {len(local)} of "
            f"{len(everywhere)} {everywhere[0].device_kind} devices"
        )


@contextmanager
def joined(launch: Launch) -> Iterator[Cluster]:
    """Join the processes of the run; on leaving, all of them leave together.

    Where there are several processes and the body raises anything but ``SharedError``, this process ends at once with a
    line or traceback and an exit code, so that the others notice: see ``lost_peers``.

    Raises:
      ConfigError: no description of the other processes was found, or they cannot be joined.
    """
    if not launch.joins:
        start_platform()
        yield Cluster()
        return
    # JAX's own preemption notice would take SIGTERM from the handler of `interrupts`.
    jax.config.update("jax_enable_preemption_service", False)
    with lost_peers.LostPeers(launch.heartbeat_timeout) as peers:
        _join(launch, peers)
        start_platform()
        peers.listen()
        if jax.devices()[0].platform == "cpu":
            # Seen with jax 0.10.2: programs that processes of CPUs read from the cache wait for each other for ever.
            jax.config.update("jax_enable_compilation_cache", False)
        cluster = Cluster()
        peers.name = cluster.name
        try:
            yield cluster
        except lost_peers.SharedError:
            jax.distributed.shutdown()
            raise
        jax.distributed.shutdown()


def _join(launch: Launch, peers: lost_peers.LostPeers) -> None:
    """``jax.distributed.initialize``, tried a second time if describing the processes failed."""
    where = launch.coordinator or "the coordinator that was detected"
    peers.waiting_for = f"the other processes did not all reach {where} within --init_timeout={launch.init_timeout} s"
    options: dict[str, Any] = {
        "initialization_timeout": launch.init_timeout,
        "heartbeat_timeout_seconds": launch.heartbeat_timeout,
    }
    if launch.coordinator:
        options |= {
            "coordinator_address": launch.coordinator,
            "num_processes": launch.num_processes,
            "process_id": launch.process_id,
            "cluster_detection_method": "deactivate",
        }
    try:
        jax.distributed.initialize(**options)
    # The detectors raise whatever the metadata server, the network or the environment makes them raise.
    except Exception as error:
        if launch.coordinator:
            raise ConfigError(_not_joined(launch, error)) from error
        print(f"sparsejax: joining the other processes failed ({_first_line(error)}); trying again", file=sys.stderr)
        time.sleep(_RETRY_SECONDS)
        try:
            jax.distributed.initialize(**options)
        except Exception:
            # The second failure may only be a consequence of the first.
            raise ConfigError(_not_joined(launch, error)) from error
    peers.waiting_for = ""


def _not_joined(launch: Launch, error: Exception) -> str:
    if launch.coordinator:
        return f"--coordinator={launch.coordinator}: cannot be joined ({_first_line(error)})"
    return (
        f"--distributed: found no TPU pod, SLURM, Kubernetes or Open MPI job to join ({_first_line(error)}); "
        "give --coordinator, --num_processes and --process_id"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
