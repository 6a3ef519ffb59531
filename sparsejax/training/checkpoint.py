"""Checkpoints: the only file that knows Orbax (v1). Asynchronous saves, exact restores, loud fallback.

A run directory holds ``checkpoints/<step>``. Each carries the whole ``TrainState``, the resolved config and an
integer digest of all bits. A checkpoint that cannot be read, or whose bits differ from its digest, is set
aside under ``checkpoints-broken/`` and the one before it is used: nothing is deleted, nothing silently restarts.

All processes of a run save and restore together; each writes and reads what its devices hold, so the run directory must
be one that all of them see: a shared disk, or a bucket (``gs://``). Process 0 alone moves what is broken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from sparsejax.config import ConfigError
from sparsejax.training.cluster import Cluster
from sparsejax.training.lost_peers import SharedError
from sparsejax.training.state import TrainState
from sparsejax.training.workdir import Notice, RunDirectory, absolute

_policies = ocp.training.preservation_policies


class CheckpointError(ConfigError):
    """Checkpoints exist, but none of them can be read; one line, like every error a user can mend."""


@jax.jit
def state_digest(state: Any) -> jax.Array:
    """A uint32 that changes with any single bit of the state; integer sums, so equal on every mesh."""
    total = jnp.zeros((), jnp.uint32)
    for number, leaf in enumerate(jax.tree.leaves(state)):
        width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[leaf.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(leaf, width).astype(jnp.uint32)
        total += jnp.uint32(2 * number + 1) * jnp.sum(bits, dtype=jnp.uint32)
    return total


class Checkpoints:
    """The checkpoints of one run directory; use as a context manager, leaving waits for saves under way."""

    def __init__(
        self, workdir: RunDirectory, *, keep_last: int, keep_every: int, notice: Notice, owner: bool = True
    ) -> None:
        """Open (and create) ``workdir/checkpoints``, keeping the last N and every M-th step.

        Args:
          workdir: the run directory.
          keep_last: how many of the newest checkpoints stay.
          keep_every: steps divisible by it stay for ever; 0 keeps none of them.
          notice: receives one line for whatever the user must know.
          owner: whether this process trains here. Another one only looks: it moves no broken checkpoint and
            removes no unfinished save, which may be the owner's, under way.
        """
        logging.getLogger("absl").setLevel(logging.ERROR)
        policies: list[Any] = [_policies.LatestN(keep_last)]
        if keep_every:
            policies.append(_policies.EveryNSteps(keep_every))
        self._directory = absolute(workdir) / "checkpoints"
        self._broken = absolute(workdir) / "checkpoints-broken"
        self._cluster = Cluster()
        self._notice = notice
        self._owner = owner
        self._open = lambda: ocp.training.Checkpointer(
            self._directory,
            preservation_policy=_policies.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=owner,
        )
        self._checkpointer = self._open()
        self._pending: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A process that ends alone must not wait for the others to finish a save.
        if self._cluster.count == 1 or error is None or isinstance(error, SharedError):
            self._checkpointer.close()

    @property
    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        return sorted(int(found.step) for found in self._checkpointer.checkpoints)

    def save(self, state: TrainState, config: dict[str, Any]) -> None:
        """Start saving ``state``; returns once the arrays are copied. A save under way is waited for first.

        Raises:
          Exception: whatever made the save before this one fail; it is never lost.
        """
        self.wait()
        metadata = {"config": config, "digest": int(state_digest(state))}
        self._pending = self._checkpointer.save_async(
            int(state.step), state, force=True, overwrite=True, custom_metadata=metadata
        )

    def wait(self) -> None:
        """Block until no save is under way, and raise what made one fail."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def config(self) -> dict[str, Any] | None:
        """The resolved config of the newest checkpoint whose metadata can be read, None without one."""
        for step in reversed(self.steps):
            metadata = self._metadata(step)
            if metadata is not None:
                return metadata["config"]
        return None

    def config_of(self, step: int) -> dict[str, Any] | None:
        """The resolved config that a checkpoint was saved with, None if its metadata cannot be read."""
        metadata = self._metadata(step) if step in self.steps else None
        return None if metadata is None else metadata["config"]

    def restore(self, abstract_at: Callable[[int], TrainState]) -> TrainState | None:
        """The newest checkpoint that can be read, or None if the run has none.

        Args:
          abstract_at: shapes, dtypes and shardings of a step to restore into (those of the current mesh).

        Raises:
          CheckpointError: there are checkpoints, but none can be read; a run never restarts at 0 by itself.
        """
        found = self.steps
        for step in reversed(found):
            state = self._load(step, abstract_at(step))
            if state is not None:
                return state
        if found:
            raise CheckpointError(
                f"{self._directory}: none of the checkpoints {found} can be read; "
                "restore one from a copy, or use a new --workdir"
            )
        return None

    def load(self, step: int, abstract: TrainState) -> TrainState:
        """The checkpoint of one step; raises ``CheckpointError`` if there is none or it cannot be read."""
        if step not in self.steps:
            raise CheckpointError(f"{self._directory}: has no checkpoint of step {step}; there are {self.steps}")
        state = self._load(step, abstract)
        if state is None:
            raise CheckpointError(f"{self._directory}: the checkpoint of step {step} cannot be read; name another")
        return state

    def _metadata(self, step: int) -> dict[str, Any] | None:
        try:
            metadata = self._checkpointer.metadata(step).custom_metadata
        except Exception as error:
            self._notice(f"checkpoint {step}: its metadata cannot be read ({_first_line(error)})")
            return None
        return dict(metadata) if metadata is not None else None

    def _load(self, step: int, abstract: TrainState) -> TrainState | None:
        digest, state, problem = None, None, ""
        try:
            metadata = self._checkpointer.metadata(step).custom_metadata
            digest = None if metadata is None else metadata["digest"]
            state = self._checkpointer.load(step, abstract)
        # Orbax raises many kinds of error for damaged files; whatever it is, an older checkpoint may be whole.
        except Exception as error:
            problem = _first_line(error)
        # What one process cannot read is of no use to the others, and the digest needs all of them.
        problem = self._cluster.first(problem)
        if not problem and (digest is None or int(state_digest(state)) != digest):
            problem = "its bits are not those that were saved"
        if problem:
            self._set_aside(step, problem)
            return None
        return state

    def _set_aside(self, step: int, problem: str) -> None:
        """Move a broken checkpoint out of the way, so that it neither hides an older one nor blocks a new save."""
        if not self._owner:
            self._notice(f"checkpoint {step} cannot be read ({problem}); trying the one before it")
            return
        self._checkpointer.close()
        if self._cluster.writes:
            target = self._move(step)
            self._notice(f"checkpoint {step} is broken ({problem}); moved to {target}, trying the one before it")
        self._cluster.wait(f"checkpoint {step} set aside")
        self._checkpointer = self._open()

    def _move(self, step: int) -> RunDirectory:
        """Move a step's directory under ``checkpoints-broken``; returns where it is now."""
        self._broken.mkdir(parents=True, exist_ok=True)
        target = self._broken / str(step)
        number = 1
        while target.exists():
            number += 1
            target = self._broken / f"{step}-{number}"
        (self._directory / str(step)).rename(target)
        return target


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
