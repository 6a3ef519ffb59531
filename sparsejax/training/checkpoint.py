"""Checkpoints: the only file that knows Orbax (v1). Asynchronous saves, exact restores, loud fallback.

A run directory holds ``checkpoints/<step>``. Each carries the whole ``TrainState`` and a record: the resolved config,
an integer digest of all bits, and the digests of ``config.json``. A step counts as saved when all its files and folders
are on the disk; only then are older ones removed. A checkpoint that cannot be read, or whose bits differ from its
digest, is set aside under ``checkpoints-broken/`` once the one before it was read: nothing is deleted, nothing silently
restarts.

All processes of a run save and restore together; each writes and reads what its devices hold, so the run directory must
be one that all of them see: a shared disk, or a bucket (``gs://``). Process 0 alone moves and removes.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
from etils import epath
from orbax.checkpoint import v1 as ocp

from sparsejax.config import ConfigError
from sparsejax.files.durable import sync_path, sync_tree
from sparsejax.files.text import one_line
from sparsejax.training.checkpoint_record import FOLDER, Config, Record, new_record, record_of, steps_in
from sparsejax.training.cluster import Cluster
from sparsejax.training.echoes import without_echoes
from sparsejax.training.lost_peers import SharedError
from sparsejax.training.state import TrainState
from sparsejax.training.workdir import Notice, RunDirectory, absolute, read_manifest

# What to restore the checkpoint of a step into.
AbstractAt = Callable[[int], TrainState]

# Orbax takes a path with one of these for a pattern.
_PATTERN = frozenset("*?[]\\")
# Behind the name of a checkpoint that is being removed.
_GOING = ".removed"
# Behind the name that Orbax gives one that is being saved.
_UNFINISHED = ".orbax-checkpoint-tmp"


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
          keep_every: steps divisible by it stay for ever, as do those that a checkpoint's own config keeps so.
          notice: receives one line for whatever the user must know.
          owner: whether this process trains here. Another one only looks: it makes, moves and removes nothing.
        """
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._home = absolute(workdir)
        self._directory = self._home / FOLDER
        self._keep_last, self._keep_every = keep_last, keep_every
        self._cluster = Cluster()
        self._notice = notice
        self._owner = owner
        self._manifest = read_manifest(workdir) if owner else None
        self._stack = contextlib.ExitStack()
        self._saver: Any = None
        self._alias: Any = None
        self._finisher = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None
        if owner:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._remove_left_overs()
            self._checkpointer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A process that ends alone must not wait for the others to finish a save.
        if self._cluster.count > 1 and error is not None and not isinstance(error, SharedError):
            return
        # The first error is told; what closing adds to it would only hide it.
        with contextlib.suppress(Exception) if error is not None else contextlib.nullcontext():
            try:
                self.wait()
            finally:
                self._close()
                self._finisher.shutdown()
                self._stack.close()

    @property
    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        return steps_in(self._home)

    def save(self, state: TrainState, config: Config) -> None:
        """Start saving ``state``; returns once the arrays are copied. A save under way is waited for first.

        Raises:
          Exception: whatever made the save before this one fail; it is never lost.
        """
        self.wait()
        record = new_record(config, int(state_digest(state)), self._manifest)
        step = int(state.step)
        started = self._checkpointer().save_async(step, state, force=True, overwrite=True, custom_metadata=record)
        self._pending = self._finisher.submit(self._finish, step, started)

    def wait(self) -> None:
        """Block until no save is under way, and raise what made one fail."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def config_of(self, step: int) -> Config:
        """The resolved config that a checkpoint was saved with; raises ``ConfigError`` if it cannot be read."""
        return record_of(self._home, step).config

    def restore(self, abstract_at: AbstractAt) -> TrainState | None:
        """The newest checkpoint that can be read, or None if the run has none.

        Args:
          abstract_at: shapes, dtypes and shardings of a step to restore into (those of the current mesh).

        Raises:
          CheckpointError: there are checkpoints, but none can be read; a run never restarts at 0 by itself.
        """
        found, broken = self.steps, {}
        for step in reversed(found):
            state, broken[step] = self._load(step, abstract_at)
            if state is not None:
                del broken[step]
                self._set_aside(broken, step)
                return state
        if found:
            raise CheckpointError(
                f"{self._directory}: none of the checkpoints {found} can be read ({found[-1]}: {broken[found[-1]]}); "
                "restore one from a copy, or use a new --workdir"
            )
        return None

    def load(self, step: int, abstract: TrainState) -> TrainState:
        """The checkpoint of one step; raises ``CheckpointError`` if there is none or it cannot be read."""
        if step not in self.steps:
            raise CheckpointError(f"{self._directory}: has no checkpoint of step {step}; there are {self.steps}")
        state, problem = self._load(step, lambda _: abstract)
        if state is None:
            raise CheckpointError(
                f"{self._directory}: the checkpoint of step {step} cannot be read ({problem}); name another"
            )
        return state

    def shapes(self, step: int) -> Any:
        """The tree of a checkpoint's state with shapes in place of arrays; None if it cannot be read."""
        try:
            with without_echoes():
                return ocp.metadata(self._orbax_directory() / str(step), checkpointable_name="state").metadata
        except Exception:  # loading it meets the same, and says so
            return None

    def tell(self, step: int, text: str) -> None:
        """Show a line about a checkpoint."""
        self._notice(f"checkpoint {step} {text}")

    def _load(self, step: int, abstract_at: AbstractAt) -> tuple[TrainState | None, str]:
        """The state of one step, or None and why it cannot be read."""
        record: Record | None = None
        state, problem = None, ""
        try:
            record = record_of(self._home, step)
        except (ConfigError, OSError) as error:
            problem = _first_line(error)
        # What one process cannot read is of no use to the others.
        problem = self._cluster.first(problem)
        if record is None or problem:
            return None, problem
        try:
            with without_echoes():
                state = ocp.load(self._orbax_directory() / str(step), abstract_at(step), checkpointable_name="state")
        # Orbax raises many kinds of error for damaged files; whatever it is, an older checkpoint may be whole.
        except Exception as error:
            problem = _first_line(error)
        problem = self._cluster.first(problem)
        # The digest needs all processes.
        if not problem and int(state_digest(state)) != record.digest:
            problem = "its bits are not those that were saved"
        return (None, problem) if problem else (state, "")

    def _set_aside(self, broken: dict[int, str], whole: int) -> None:
        """Move broken checkpoints out of the way, so that they neither hide an older one nor block a new save."""
        for step, problem in broken.items():
            if not self._owner:
                self._notice(f"checkpoint {step} cannot be read ({problem}); the one of step {whole} is used")
            elif self._cluster.writes:
                target = self._move(step)
                self._notice(f"checkpoint {step} is broken ({problem}); moved to {target}, going on from step {whole}")
        if self._owner and broken:
            self._cluster.wait("broken checkpoints set aside")
            self._close()

    def _move(self, step: int) -> RunDirectory:
        """Move a step's directory under ``checkpoints-broken``; returns where it is now."""
        folder = self._home / f"{FOLDER}-broken"
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / str(step)
        number = 1
        while target.exists():
            number += 1
            target = folder / f"{step}-{number}"
        (self._directory / str(step)).rename(target)
        return target

    def _checkpointer(self) -> Any:
        """What saves, opened when it is first needed."""
        if self._saver is None:
            # Orbax copies its options: a function stays itself, a bound method would copy all of this.
            options = ocp.options.AsyncOptions(post_finalization_callback=lambda: self._sync_unfinished())
            self._saver = ocp.training.Checkpointer(
                self._orbax_directory(),
                context=ocp.Context(async_options=options),
                preservation_policy=ocp.training.preservation_policies.PreserveAll(),
                cleanup_tmp_directories=True,
                # Metadata is read by ``checkpoint_record``; a damaged file would stop Orbax here.
                lightweight_initialize=True,
            )
        return self._saver

    def _close(self) -> None:
        saver, self._saver = self._saver, None
        if saver is not None:
            saver.close()

    def _orbax_directory(self) -> Any:
        """The directory by a name that is no pattern: its own, or a link to it in a temporary folder."""
        if self._alias is None:
            self._alias = epath.Path(self._directory)
            if isinstance(self._home, Path) and _PATTERN & set(str(self._home)):
                place = tempfile.gettempdir()
                place = "/tmp" if _PATTERN & set(place) else place
                folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sparsejax-", dir=place))
                link = Path(folder, "run")
                link.symlink_to(self._home, target_is_directory=True)
                self._alias = epath.Path(link / FOLDER)
        return self._alias

    def _sync_unfinished(self) -> None:
        """Bring a checkpoint onto the disk before it gets its name; Orbax calls this in its own thread."""
        if isinstance(self._directory, Path):
            for entry in self._directory.iterdir():
                if entry.is_dir() and not entry.name.isdecimal():
                    sync_tree(entry)

    def _finish(self, step: int, started: Any) -> None:
        """Wait for Orbax, bring the step's name onto the disk, then remove what it supersedes."""
        started.result()
        if not self._cluster.writes:
            return
        if isinstance(self._directory, Path):
            # Its files are there; what Orbax has added since is a mark and names.
            folder = self._directory / str(step)
            for path in (*(each for each in folder.iterdir() if each.is_file()), folder, self._directory, self._home):
                sync_path(path)
        for old in self.steps[: -self._keep_last]:
            if not self._kept_for_good(old):
                self._remove(old)

    def _kept_for_good(self, step: int) -> bool:
        """Whether the setting of today, or the one it was saved under, keeps a checkpoint for ever."""
        try:
            config = record_of(self._home, step).config
        except (ConfigError, OSError):
            # Nobody knows what it was.
            return True
        own = config["train"]["keep_every"] if "train" in config else 0
        return any(every and step % every == 0 for every in (own, self._keep_every))

    def _remove(self, step: int) -> None:
        folder = self._directory / str(step)
        if isinstance(folder, Path):
            # Its name goes first, so that a half of it is never taken for a checkpoint.
            going = folder.with_name(f"{step}{_GOING}")
            folder.rename(going)
            shutil.rmtree(going)
        else:
            folder.rmtree()

    def _remove_left_overs(self) -> None:
        """Remove what a process that was killed had begun to save or to remove."""
        if self._cluster.writes and isinstance(self._directory, Path):
            for entry in self._directory.iterdir():
                if entry.is_dir() and entry.name.endswith((_GOING, _UNFINISHED)):
                    shutil.rmtree(entry)


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, ConfigError):
        return text
    return f"{type(error).__name__}: {one_line(text, 160)}" if text else type(error).__name__
