"""The row a finished run leaves behind: ``result.json`` (docs/ARCHITECTURE.md, section Logs)."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import version

import jax

from sparsejax import __version__
from sparsejax.data.pipeline import Corpus, TrainBatches
from sparsejax.models.accounting import parameters
from sparsejax.scaling.runs import SCHEMA, RunResult, write
from sparsejax.training.evaluate import Evaluation
from sparsejax.training.metrics import spike_height
from sparsejax.training.metrics_rows import Row, read_log
from sparsejax.training.recipe import Recipe
from sparsejax.training.spent import whole_run
from sparsejax.training.workdir import RunDirectory, read_manifest

# The libraries that decide the arithmetic of a run.
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


def write_result(
    workdir: RunDirectory, recipe: Recipe, corpus: Corpus, batches: TrainBatches, evaluation: Evaluation, seconds: float
) -> RunResult:
    """Assemble and write the row of a finished run.

    Args:
      workdir: the run directory; its log and its manifest are read.
      recipe: the run.
      corpus: the data it drew from.
      batches: how it drew.
      evaluation: validation loss after the last step.
      seconds: wall-clock seconds of all sessions, evaluation included.
    """
    run = recipe.run
    manifest = read_manifest(workdir)
    assert manifest is not None
    rows = read_log(workdir / "metrics.jsonl").rows
    count = parameters(recipe.shape, [weight.counted for weight in recipe.weights.values()])
    tokens = batches.tokens_of(recipe.steps)
    spent = whole_run(recipe, batches.tokens_of)
    result = RunResult(
        schema=SCHEMA,
        name=workdir.resolve().name,
        size=run.model.size,
        total_parameters=count.total,
        active_parameters=count.active,
        non_embedding_parameters=count.active_non_embedding,
        mean_active_parameters=spent.active_parameters,
        unique_tokens=batches.unique_tokens,
        total_tokens=tokens,
        epochs=batches.epochs,
        density=count.density,
        block=run.topology.block,
        method=run.topology.method,
        batch_size=run.train.batch_size,
        sequence_length=run.data.sequence_length,
        steps=recipe.steps,
        peak_lr=run.optim.lr,
        schedule=run.optim.schedule,
        decay_finished=True,
        seed_init=run.seeds.init,
        seed_topology=run.seeds.topology,
        seed_data=run.seeds.data,
        started_from=manifest["start_digest"],
        data_digest=corpus.data_digest,
        tokenizer_digest=corpus.tokenizer.digest,
        train_loss=_last_loss(rows, recipe.steps),
        validation_loss=evaluation.loss,
        bits_per_byte=evaluation.bits_per_byte,
        loss_spike=spike_height(rows),
        seconds=seconds,
        executed_flops=spent.executed * recipe.steps * run.train.batch_size * run.data.sequence_length,
        theoretical_flops=spent.theoretical * tokens,
        device=f"{jax.devices()[0].device_kind} x {jax.device_count()}",
        versions=_versions(),
        git_commits=",".join(manifest["git_commits"]),
    )
    write(result, workdir / "result.json")
    return result


def _last_loss(rows: Sequence[Row], steps: int) -> float:
    """Mean loss of the last interval; not a number without its row, which may have been damaged."""
    found = (row["loss_mean"] for row in rows if row["kind"] == "train" and row["step"] == steps)
    return next(found, math.nan)


def _versions() -> dict[str, str]:
    own = {"sparsejax": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in _LIBRARIES}
