"""From a config and a run directory to a finished run: everything is checked before anything compiles."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import jax
from rich.console import Console

from sparsejax.config import ConfigError, RunConfig
from sparsejax.data.pipeline import Corpus, TrainBatches, open_corpus
from sparsejax.files.durable import sync_tree
from sparsejax.hardware.target import target_of
from sparsejax.training import workdir as rundir
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.cluster import Cluster
from sparsejax.training.compile_cache import use_compile_cache
from sparsejax.training.dense_start import DenseStart, OpenCheckpoint, open_start, start_digest
from sparsejax.training.elastic import restore_newest
from sparsejax.training.idle_settings import facts_of
from sparsejax.training.interrupts import Interrupts
from sparsejax.training.io_failures import told_with_last_checkpoint
from sparsejax.training.memory import check_fits
from sparsejax.training.mesh import make_mesh, settle_mesh
from sparsejax.training.metrics import RunLog, SilentLog
from sparsejax.training.programs import init_state
from sparsejax.training.progress import ProgressDisplay
from sparsejax.training.provenance import git_commit
from sparsejax.training.recipe import Recipe, build_recipe
from sparsejax.training.report import density_table
from sparsejax.training.run_remarks import refusals, remarks
from sparsejax.training.session import Outcome, Session
from sparsejax.training.shared_interrupts import SharedInterrupts
from sparsejax.training.state import TrainState
from sparsejax.training.trunk import check_trunks, start_from, take_over_log
from sparsejax.training.watchdog import Watchdog, ends_process

Trunks: TypeAlias = Sequence[rundir.RunDirectory]

# Where a machine finds the text and keeps its caches may differ between the processes of a run; nothing else may.
_OWN_KEYS = {
    "data": ("path", "validation_path", "cache_dir", "tokenizer_path"),
    "init": ("from",),
    "train": ("compile_cache",),
}


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """What a process found out by itself, before anything compiled."""

    recipe: Recipe
    corpus: Corpus
    batches: TrainBatches
    start: DenseStart | None


def train(
    run: RunConfig,
    workdir: rundir.RunDirectory,
    *,
    extend: bool,
    console: Console,
    watchdog: float = 0.0,
    trunks: Trunks = (),
    opens: OpenCheckpoint | None = None,
) -> Outcome:
    """Train, or continue, the run in ``workdir`` until it is finished or told to stop.

    Where JAX was joined to other processes (``cluster.joined``), all of them call this with the same arguments.

    Args:
      run: the resolved configuration.
      workdir: the run directory; made if missing, continued if it holds a run with the same semantic keys.
      extend: allow more steps than the run was started with.
      console: where progress is shown, by process 0.
      watchdog: seconds without a step after which all stacks are dumped; 0 never. See ``watchdog``.
      trunks: other runs, from whose checkpoints a run without one may start. See ``trunk``.
      opens: opens the dense checkpoint that ``init.from`` names. See ``dense_start``.

    Raises:
      ConfigError: the config, the data and the directories do not fit together; nothing was compiled.
      CheckpointError: there are checkpoints, none of them can be read.
    """
    cluster = Cluster()
    own_console, console = console, console if cluster.writes else Console(quiet=True)

    def notice(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    use_compile_cache(run.train.compile_cache, notice)
    with told_with_last_checkpoint(workdir), ExitStack() as stack:

        def prepare() -> _Prepared:
            if cluster.writes:
                stack.enter_context(rundir.claimed(workdir))
            return _prepare(run, workdir, extend, opens, trunks, notice)

        prepared = cluster.together(prepare)
        recipe, corpus, batches = prepared.recipe, prepared.corpus, prepared.batches
        _check_shared(cluster, prepared, workdir)
        _announce(cluster, recipe, own_console, console)
        kept = recipe.run.train
        interrupts = SharedInterrupts(stack.enter_context(Interrupts()), cluster.count)
        checkpoints = stack.enter_context(
            Checkpoints(workdir, keep_last=kept.keep_last, keep_every=kept.keep_every, notice=notice)
        )
        state = _saved_or_first(checkpoints, prepared, trunks, workdir if cluster.writes else None, notice)
        start = int(state.step)
        recipe = recipe.in_use_after(start)
        log = stack.enter_context(RunLog(workdir, start, notice)) if cluster.writes else SilentLog()
        display = stack.enter_context(ProgressDisplay(console, start, recipe.steps))
        dog = stack.enter_context(Watchdog(watchdog, workdir, name=cluster.name, end=ends_process(cluster.count)))
        teacher = None if prepared.start is None else prepared.start.teacher(recipe, notice)
        session = Session(recipe, corpus, batches, checkpoints, interrupts, dog, log, display, workdir, teacher)
        return session.run(state)


def _announce(cluster: Cluster, recipe: Recipe, own_console: Console, console: Console) -> None:
    """Say what will run: every process where it is, process 0 what is trained."""
    if cluster.count > 1 or recipe.mesh is not None:
        own_console.print(f"{cluster.line()}; mesh {_mesh_line(recipe)}", highlight=False, soft_wrap=True)
    console.print(density_table(recipe))


def _saved_or_first(
    checkpoints: Checkpoints,
    prepared: _Prepared,
    trunks: Trunks,
    log: rundir.RunDirectory | None,
    notice: rundir.Notice,
) -> TrainState:
    """The state to go on from; ``log`` is where to put the rows that led to that of a trunk, None for nowhere."""
    saved = restore_newest(checkpoints, prepared.recipe)
    if saved is not None:
        notice(f"continuing from step {int(saved.step)} of {prepared.recipe.steps}")
        return saved
    digests = prepared.corpus.data_digest, prepared.corpus.tokenizer.digest
    found = start_from(trunks, prepared.recipe, prepared.batches.plan, digests, notice)
    if found is None and prepared.start is not None:
        return prepared.start.first_state(prepared.recipe, prepared.batches, notice)
    if found is None:
        return init_state(prepared.recipe)
    state, trunk = found
    if log is not None:
        take_over_log(trunk, log, int(state.step))
    return state


def _prepare(
    run: RunConfig,
    workdir: rundir.RunDirectory,
    extend: bool,
    opens: OpenCheckpoint | None,
    trunks: Trunks,
    notice: rundir.Notice,
) -> _Prepared:
    """Everything that can be refused: local work, without a collective."""
    check_trunks(trunks)
    devices = jax.devices()
    run = settle_mesh(run, len(devices))
    mesh = make_mesh(run.mesh, devices)
    idle = {device.process_index for device in devices} - {device.process_index for device in mesh.devices.flat}
    if idle:
        raise ConfigError(
            f"mesh.fsdp={run.mesh.fsdp}: the mesh takes {mesh.size} of {len(devices)} devices and none of process "
            f"{min(idle)}; mesh.fsdp=0 takes all"
        )
    rundir.check_continues(workdir, run, extend=extend)
    corpus = open_corpus(run.data, notice)
    rundir.check_same_data(workdir, corpus.data_digest, corpus.tokenizer.digest)
    batches = train_batches(run, corpus, rundir.filled_epochs(workdir, run), notice)
    recipe = build_recipe(
        run,
        steps=batches.steps,
        vocab_size=corpus.tokenizer.vocab_size,
        start_id=corpus.tokenizer.start_id,
        target=target_of(devices[0]),
        mesh=mesh,
    )
    check_fits(recipe)
    _say_what_does_nothing(recipe, batches, rundir.started_with(workdir) is None, notice)
    return _Prepared(recipe, corpus, batches, open_start(recipe, corpus, workdir, opens, notice))


def _say_what_does_nothing(recipe: Recipe, batches: TrainBatches, is_new: bool, notice: rundir.Notice) -> None:
    """One line for each setting without effect; a run that continues is told of what a new one is refused for."""
    facts = facts_of(recipe.run, steps=recipe.steps, epochs=batches.epochs)
    for line in refusals(facts):
        if is_new:
            raise ConfigError(line)
        notice(line)
    for line in remarks(facts):
        notice(line)


def _check_shared(cluster: Cluster, prepared: _Prepared, workdir: rundir.RunDirectory) -> None:
    """Write what a run directory begins with, once all processes agree on it and all of them see it."""
    run, corpus, start = prepared.recipe.run, prepared.corpus, start_digest(workdir, prepared.start)
    cluster.check_equal(
        {
            "--config": json.dumps(_shared_keys(run.to_dict()), sort_keys=True),
            "data_digest": corpus.data_digest,
            "tokenizer_digest": corpus.tokenizer.digest,
            "start_digest": start,
        }
    )
    mark = cluster.gather(rundir.new_mark())[0]

    def write() -> None:
        rundir.remove_left_overs(workdir)
        digests = corpus.data_digest, corpus.tokenizer.digest, start
        batches = prepared.batches
        rundir.write_manifest(workdir, run, batches.steps, *digests, filled=batches.plan.filled)
        rundir.add_commits(workdir, [git_commit()])
        corpus.tokenizer.save(workdir / "tokenizer")
        if isinstance(workdir, Path):
            sync_tree(workdir / "tokenizer")
        if cluster.count > 1:
            rundir.leave_mark(workdir, mark)

    def look() -> None:
        if cluster.count > 1:
            rundir.check_mark(workdir, mark)

    cluster.together(write if cluster.writes else lambda: None)
    try:
        cluster.together(look)
    finally:
        if cluster.count > 1 and cluster.writes:
            rundir.remove_mark(workdir, mark)


def _shared_keys(config: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    own = {(section, key) for section, keys in _OWN_KEYS.items() for key in keys}
    return {
        section: {key: value for key, value in values.items() if (section, key) not in own}
        for section, values in config.items()
    }


def _mesh_line(recipe: Recipe) -> str:
    if recipe.mesh is None:
        return "of one device"
    return " x ".join(f"{name} {size}" for name, size in recipe.mesh.shape.items())


def train_batches(run: RunConfig, corpus: Corpus, filled: Sequence[int], notice: rundir.Notice) -> TrainBatches:
    """The batches of a run, as its configuration cuts them from the corpus; ``filled``: ``workdir.filled_epochs``."""
    return TrainBatches(
        corpus.train,
        sequence_length=run.data.sequence_length,
        unique_tokens=run.data.unique_tokens,
        batch_size=run.train.batch_size,
        epochs=run.train.epochs,
        steps=run.train.steps,
        seed=run.seeds.data,
        reshuffle_each_epoch=run.data.reshuffle_each_epoch,
        notice=notice,
        filled=filled,
    )
