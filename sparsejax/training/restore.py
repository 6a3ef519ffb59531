"""A run directory back into a model: for evaluation, generation and export."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax

from sparsejax.config import ConfigError, RunConfig, resolve
from sparsejax.data.tokenizer import Tokenizer, load_tokenizer
from sparsejax.hardware.target import target_of
from sparsejax.optim.weight_average import averaged_weights
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.checkpoint_record import steps_in
from sparsejax.training.elastic import restore_newest
from sparsejax.training.recipe import Recipe, build_recipe
from sparsejax.training.state import TrainState
from sparsejax.training.workdir import Notice, RunDirectory, opened_manifest

# What ``state.params`` of a restored run are: the weights as trained, or their average (``optim.ema_decay``).
Weights = Literal["raw", "ema"]
_NO_CHECKPOINT = "has no checkpoint yet; train until the first one is saved"
WEIGHTS: tuple[str, ...] = get_args(Weights)


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """The newest readable checkpoint of a run, with what is needed to use it.

    Attributes:
      run: as it was trained.
      recipe: the run on the devices that are here.
      state: the checkpoint.
      tokenizer: of its text.
    """

    run: RunConfig
    recipe: Recipe
    state: TrainState
    tokenizer: Tokenizer


def restore_run(workdir: RunDirectory, notice: Notice, weights: Weights = "raw") -> TrainedRun:
    """Load the newest readable checkpoint of ``workdir``; with ``weights="ema"`` its params are the average.

    Raises:
      ConfigError: the directory holds no run, a run that has not saved a checkpoint yet, or one without the average.
      CheckpointError: there are checkpoints, none of them can be read.
    """
    manifest = opened_manifest(workdir)
    run = resolve(manifest["config"])
    tokenizer = run_tokenizer(workdir, manifest)
    recipe = _recipe_here(run, manifest["steps"], tokenizer, notice)
    train = run.train
    with Checkpoints(
        workdir, keep_last=train.keep_last, keep_every=train.keep_every, notice=notice, owner=False
    ) as saved:
        state = restore_newest(saved, recipe)
    if state is None:
        raise ConfigError(f"--workdir={workdir}: {_NO_CHECKPOINT}")
    if weights == "ema":
        state = _with_average(workdir, state)
    return TrainedRun(run, recipe.at_stage(int(state.step)), state, tokenizer)


def check_runs(workdirs: Sequence[RunDirectory], weights: Weights = "raw") -> None:
    """Look at several runs before the work on the first: manifest, tokenizer and a checkpoint are there.

    Args:
      workdirs: run directories.
      weights: what will be read of them.

    Raises:
      ConfigError: as ``restore_run``.
    """
    for workdir in workdirs:
        manifest = opened_manifest(workdir)
        run = resolve(manifest["config"])
        run_tokenizer(workdir, manifest)
        if not steps_in(workdir):
            raise ConfigError(f"--workdir={workdir}: {_NO_CHECKPOINT}")
        if weights == "ema" and not run.optim.ema_decay:
            raise _no_average(workdir)


def run_tokenizer(workdir: RunDirectory, manifest: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a run was trained with, as its directory keeps it.

    Args:
      workdir: the run directory.
      manifest: what its ``config.json`` says; the digest there covers all ids and the special ones.

    Raises:
      ConfigError: there is none, or it is not the one that the run was started with.
    """
    return load_tokenizer(workdir / "tokenizer", manifest["tokenizer_digest"])


def _recipe_here(run: RunConfig, steps: int, tokenizer: Tokenizer, notice: Notice) -> Recipe:
    build = partial(
        build_recipe,
        steps=steps,
        vocab_size=tokenizer.vocab_size,
        start_id=tokenizer.start_id,
        target=target_of(jax.devices()[0]),
    )
    try:
        return build(run)
    except ConfigError as error:
        # What was named for the devices that trained it may not exist on those that use it.
        anywhere = dataclasses.replace(
            run, model=dataclasses.replace(run.model, implementation="auto", attention="auto")
        )
        recipe = build(anywhere)
        notice(f"trained with {error}; auto is used instead")
        return recipe


def _with_average(workdir: RunDirectory, state: TrainState) -> TrainState:
    average = averaged_weights(state.opt_state)
    if average is None:
        raise _no_average(workdir)
    return dataclasses.replace(state, params=average)


def _no_average(workdir: RunDirectory) -> ConfigError:
    return ConfigError(
        f"--weights=ema: {workdir} keeps no average of its weights; train it with --config.optim.ema_decay=0.999"
    )
