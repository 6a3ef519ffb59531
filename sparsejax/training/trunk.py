"""Runs that begin with the same steps: the later one starts from a checkpoint of the earlier one.

A run of many epochs whose learning rate holds (``optim.schedule=wsd``) passes through the states that shorter runs
reach before theirs decays. So one trunk gives several finished runs, each for the price of its decay. Nothing about a
run changes by it: it may start from another run's checkpoint only where it would have had that very state itself, bit
for bit, because text, seeds, model, optimizer and every learning rate and rewiring up to there are the same. Its log
takes over the rows up to that step, so ``result.json`` says what it would have said, seconds included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsejax.config import ConfigError, resolve
from sparsejax.data.row_plan import RowPlan
from sparsejax.files.durable import replace_file
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.checkpoint_record import steps_in
from sparsejax.training.elastic import load_step
from sparsejax.training.metrics import METRICS
from sparsejax.training.metrics_rows import whole_log
from sparsejax.training.recipe import Recipe, build_recipe
from sparsejax.training.rewire_plan import is_due, rate_at, temperature_at
from sparsejax.training.siblings import are_siblings
from sparsejax.training.state import TrainState
from sparsejax.training.workdir import Notice, RunDirectory, add_commits, checked_manifest, opened_manifest


def common_steps(recipe: Recipe, other: Recipe) -> int:
    """How many first steps of two runs are the same computation.

    Args:
      recipe: one run.
      other: another one, on the same text.
    """
    if not are_siblings(recipe.run, other.run):
        return 0
    same = min(recipe.steps, other.steps)
    rates = [np.asarray(each.rates)[:same] for each in (recipe, other)]
    unequal = np.flatnonzero(rates[0] != rates[1])
    same = int(unequal[0]) if unequal.size else same
    topology = recipe.run.topology
    # What is due at a rewiring begins before it: blocks fade out, scores are added up.
    ahead = max(topology.fade_steps, topology.score_steps)
    for step in range(topology.every, same + ahead + 1, topology.every):
        if _rewiring(recipe, step) != _rewiring(other, step):
            return max(0, min(same, step - 1 - ahead))
    return same


def _rewiring(recipe: Recipe, step: int) -> tuple[float, ...] | None:
    """What is due after ``step``; None if nothing."""
    if not is_due(recipe, step):
        return None
    drawn = recipe.run.topology.drop == "soft"
    return rate_at(recipe, step), temperature_at(recipe, step) if drawn else 0.0


def start_from(
    trunks: Sequence[RunDirectory], recipe: Recipe, plan: RowPlan, digests: tuple[str, str], notice: Notice
) -> tuple[TrainState, RunDirectory] | None:
    """The furthest state of the trunks that this run would pass through, on the recipe's mesh, and whose it is.

    Args:
      trunks: run directories; nothing in them changes.
      recipe: of the run that starts.
      plan: rows of its batches.
      digests: of its data and of its tokenizer.
      notice: told where the run starts, and which checkpoints cannot be read.

    Returns:
      None if no trunk has a checkpoint on the way of this run.
    """
    ways = [(step, trunk) for trunk in trunks for step in _on_the_way(trunk, recipe, plan, digests)]
    for step, trunk in sorted(ways, key=lambda way: -way[0]):
        try:
            with _looking(trunk, recipe, notice) as saved:
                state = load_step(saved, recipe, step)
        except ConfigError as error:
            notice(f"--trunk: {error}; trying the one before it")
            continue
        notice(f"starting from step {step} of {trunk}: up to there this run is the same")
        return state, trunk
    return None


def take_over_log(trunk: RunDirectory, workdir: RunDirectory, step: int) -> None:
    """Begin the log of a run that starts from a trunk's ``step`` with the rows up to there, and name who trained it."""
    log = whole_log(trunk / METRICS)
    lines = [line for row, line in zip(log.rows, log.lines, strict=True) if row["step"] <= step]
    replace_file(workdir / METRICS, "".join(f"{line}\n" for line in lines))
    add_commits(workdir, opened_manifest(trunk, "trunk")["git_commits"])


def check_trunks(trunks: Sequence[RunDirectory]) -> None:
    """Raise ``ConfigError`` for a directory that holds no run, or one whose config or log was changed."""
    for trunk in trunks:
        opened_manifest(trunk, "trunk")
        whole_log(trunk / METRICS)


def _on_the_way(trunk: RunDirectory, recipe: Recipe, plan: RowPlan, digests: tuple[str, str]) -> list[int]:
    """The checkpoints of a trunk that the run would pass through."""
    manifest = checked_manifest(trunk)
    if manifest is None or (manifest["data_digest"], manifest["tokenizer_digest"]) != digests:
        return []
    run = resolve(manifest["config"])
    if not are_siblings(recipe.run, run):
        return []
    other = build_recipe(
        run, steps=manifest["steps"], vocab_size=recipe.vocab_size, start_id=recipe.start_id, target=recipe.target
    )
    train, filled = run.train, manifest["filled_epochs"]
    of_trunk = RowPlan(plan.rows, plan.batch_size, epochs=train.epochs, steps=train.steps, filled=filled)
    # The last batch of a run of whole epochs is not one of a longer run.
    same = min(common_steps(recipe, other), plan.common_batches(of_trunk))
    return [step for step in steps_in(trunk) if 0 < step <= same]


def _looking(trunk: RunDirectory, recipe: Recipe, notice: Notice) -> Checkpoints:
    kept = recipe.run.train
    return Checkpoints(trunk, keep_last=kept.keep_last, keep_every=kept.keep_every, notice=notice, owner=False)
