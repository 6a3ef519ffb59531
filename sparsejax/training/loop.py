"""From a config and a run directory to a finished run: everything is checked before anything compiles."""

from __future__ import annotations

from pathlib import Path

import jax
from rich.console import Console

from sparsejax.config import RunConfig
from sparsejax.data.pipeline import Corpus, TrainBatches, open_corpus
from sparsejax.hardware.target import target_of
from sparsejax.training import workdir as rundir
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.elastic import restore_newest
from sparsejax.training.interrupts import Interrupts
from sparsejax.training.mesh import make_mesh, settle_mesh
from sparsejax.training.metrics import RunLog
from sparsejax.training.programs import init_state
from sparsejax.training.progress import ProgressDisplay
from sparsejax.training.recipe import build_recipe
from sparsejax.training.report import density_table
from sparsejax.training.session import Outcome, Session


def train(run: RunConfig, workdir: Path, *, extend: bool, console: Console) -> Outcome:
    """Train, or continue, the run in ``workdir`` until it is finished or told to stop.

    Args:
      run: the resolved configuration.
      workdir: the run directory; made if missing, continued if it holds a run with the same semantic keys.
      extend: allow more steps than the run was started with.
      console: where progress is shown.

    Raises:
      ConfigError: the config, the data and the directory do not fit together; nothing was compiled.
      CheckpointError: there are checkpoints, none of them can be read.
    """

    def notice(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    with rundir.claimed(workdir), Interrupts() as interrupts:
        devices = jax.devices()
        run = settle_mesh(run, len(devices))
        rundir.check_continues(workdir, run, extend=extend)
        corpus = open_corpus(run.data, notice)
        rundir.check_same_data(workdir, corpus.data_digest, corpus.tokenizer.digest)
        batches = train_batches(run, corpus, notice)
        recipe = build_recipe(
            run,
            steps=batches.steps,
            vocab_size=corpus.tokenizer.vocab_size,
            start_id=corpus.tokenizer.start_id,
            target=target_of(devices[0]),
            mesh=make_mesh(run.mesh, devices),
        )
        rundir.write_manifest(workdir, run, batches.steps, corpus.data_digest, corpus.tokenizer.digest)
        corpus.tokenizer.save(workdir / "tokenizer")
        console.print(density_table(recipe))
        if run.train.compile_cache:
            jax.config.update("jax_compilation_cache_dir", run.train.compile_cache)
        with Checkpoints(
            workdir, keep_last=run.train.keep_last, keep_every=run.train.keep_every, notice=notice
        ) as checkpoints:
            restored = restore_newest(checkpoints, recipe)
            state = init_state(recipe) if restored is None else restored
            start = int(state.step)
            recipe = recipe.at_stage(start)
            if restored is not None:
                notice(f"continuing from step {start} of {recipe.steps}")
            with RunLog(workdir, start) as log, ProgressDisplay(console, start, recipe.steps) as display:
                session = Session(recipe, corpus, batches, checkpoints, interrupts, log, display, workdir)
                return session.run(state)


def train_batches(run: RunConfig, corpus: Corpus, notice: rundir.Notice) -> TrainBatches:
    """The batches of a run, as its configuration cuts them from the corpus."""
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
    )
