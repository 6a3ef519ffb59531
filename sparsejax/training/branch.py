"""The branch test: what one rewiring costs, apart from everything else that moves the loss.

A loss that falls hides what a rewiring does to it, so "after less before" shows little. Here one saved state goes on
several times over the same batches: without the rewiring, with the drop only, and with the whole rewiring, each in
every optimizer form. All settings but the form are the run's own, and what is dropped and grown is the same in all
branches, because it depends on the state and the seeds only. What follows from the losses is in ``branch_rows``.

A checkpoint of step s holds the topology after whatever was due at s. So the state is first trained on, as the run
did, to the next step r that rewires, and the branches part there, before the rewiring: the branch (rewire, the run's
own form) is the run itself, bit for bit, up to its next rewiring. If the run fades blocks out they part
``topology.fade_steps`` earlier, so that the fading counts as part of the rewiring. After r no branch rewires again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.config import ConfigError, OptimConfig, RunConfig
from sparsejax.data.pipeline import TrainBatches, open_corpus
from sparsejax.optim.saturation import saturate
from sparsejax.training.branch_rows import CHANGES, FORMS, BranchRow
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.checkpoint_record import steps_in
from sparsejax.training.elastic import load_step
from sparsejax.training.growth_scores import NO_SCORES, Scores, make_score_step, wants_scores
from sparsejax.training.loop import train_batches
from sparsejax.training.recipe import Recipe
from sparsejax.training.restore import check_runs, restore_run
from sparsejax.training.rewire_plan import RewirePlan, is_due, plan_at, rate_at
from sparsejax.training.rewiring import make_fade_step, make_rewire_step
from sparsejax.training.state import TrainState
from sparsejax.training.steps import Metrics, make_train_step
from sparsejax.training.workdir import Notice, RunDirectory, check_same_data, filled_epochs

TrainStep = Callable[[TrainState, np.ndarray, jax.Array], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class Parting:
    """Where the branches part.

    Attributes:
      state: after ``step`` steps; neither fading nor rewiring has begun.
      scores: what the rewiring's rules know by then.
      step: batches consumed.
      rewire_step: the step whose rewiring is looked at, ``topology.fade_steps`` later.
    """

    state: TrainState
    scores: Scores
    step: int
    rewire_step: int


class BranchTest:
    """Compiles the programs of one run once, for all its checkpoints."""

    def __init__(self, recipe: Recipe, batches: TrainBatches) -> None:
        """Compile nothing yet; raises ``ConfigError`` if this run has nothing to test."""
        check_testable(recipe.run)
        self.recipe, self.batches, self.rates = recipe, batches, recipe.rates
        self.train_steps = {form: jax.jit(make_train_step(in_form(recipe, form))) for form in FORMS}
        self.rewire_step = jax.jit(make_rewire_step(recipe))
        self.fade_step = jax.jit(make_fade_step(recipe))
        self.score_step = jax.jit(make_score_step(recipe))

    def rewire_step_after(self, step: int, steps: int) -> int | None:
        """The first rewiring that a checkpoint of ``step`` can be trained on to, with ``steps`` batches left for it."""
        topology = self.recipe.run.topology
        last = min(self.recipe.steps, self.recipe.steps - steps + topology.fade_steps)
        found = (r for r in range(step + max(topology.fade_steps, 1), last + 1) if is_due(self.recipe, r))
        return next(found, None)

    def parting(self, state: TrainState, rewire_step: int, saturated: int) -> Parting:
        """Train ``state`` on as the run did, up to where the branches part.

        Args:
          state: a checkpoint of the run.
          rewire_step: from ``rewire_step_after``.
          saturated: updates to add to all ages there, see ``optim.saturation``.
        """
        optim = self.recipe.run.optim
        scores = NO_SCORES
        step, end = int(state.step), rewire_step - self.recipe.run.topology.fade_steps
        while step < end:
            state, _ = self.train_steps[optim.form](state, self.batches.batch(step), self.rates)
            step += 1
            if wants_scores(self.recipe, step):
                state, scores = self.score_step(state, self.batches.batch(step - 1))
        if saturated:
            late = saturate(state.opt_state, saturated, optim.b1, optim.b2)
            state = dataclasses.replace(state, opt_state=late)
        return Parting(state, scores, step, rewire_step)

    def losses(self, parting: Parting, form: str, change: str, steps: int) -> list[float]:
        """Training losses of the next ``steps`` batches in one branch."""
        state, scores = parting.state, parting.scores
        found = []
        for step in range(parting.step, parting.step + steps):
            if step > parting.step and step <= parting.rewire_step and wants_scores(self.recipe, step):
                state, scores = self.score_step(state, self.batches.batch(step - 1))
            if change != "none":
                state = self.changed(state, scores, step, parting.rewire_step, change)
            state, metrics = self.train_steps[form](state, self.batches.batch(step), self.rates)
            found.append(metrics["loss"])
        return [float(loss) for loss in jax.device_get(found)]

    def changed(self, state: TrainState, scores: Scores, step: int, rewire_step: int, change: str) -> TrainState:
        """``state`` after what is due to its topology after ``step``: fading, dropping, growing, or nothing."""
        left, plan = rewire_step - step, plan_at(self.recipe, rewire_step)
        if 0 <= left < self.recipe.run.topology.fade_steps:
            state = self.fade_step(state, plan, jnp.float32(left / (left + 1)))
        if left == 0:
            state, _ = self.rewire_step(state, plan if change == "rewire" else without_growth(plan), scores)
        return state

    def rows(self, run: str, parting: Parting, steps: int, saturated: int) -> list[BranchRow]:
        """All branches of one rewiring, as the rows of the CSV file; ``run`` is the name they carry."""
        settings = self.recipe.run
        rows = []
        shared: dict[str, list[float]] = {}
        if forms_agree(settings.optim, saturated):
            shared = {change: self.losses(parting, settings.optim.form, change, steps) for change in ("none", "drop")}
        for form in FORMS:
            curves = {
                change: shared[change] if change in shared else self.losses(parting, form, change, steps)
                for change in CHANGES
            }
            rows += [
                BranchRow(
                    run=run,
                    seeds=f"{settings.seeds.init}-{settings.seeds.topology}-{settings.seeds.data}",
                    method=settings.topology.method,
                    block="x".join(map(str, settings.topology.block)),
                    density=settings.topology.density,
                    b2=settings.optim.b2,
                    fade_steps=settings.topology.fade_steps,
                    saturate=saturated,
                    rewire_step=parting.rewire_step,
                    rate=rate_at(self.recipe, parting.rewire_step),
                    form=form,
                    change=change,
                    step=number,
                    loss=loss,
                    excess=loss - still,
                )
                for change, curve in curves.items()
                for number, (loss, still) in enumerate(zip(curve, curves["none"], strict=True), start=1)
            ]
        return rows


def check_testable(run: RunConfig) -> None:
    """Raise ``ConfigError`` for a run without a rewiring that drops and grows, or that cannot drop alone."""
    topology = run.topology
    if "none" in (topology.drop, topology.grow) or topology.density == 1.0:
        raise ConfigError(
            f"topology.drop={topology.drop}, topology.grow={topology.grow}, topology.density={topology.density:g}: "
            "this run never replaces a block; the branch test needs one that does"
        )
    if topology.balance == "column":
        raise ConfigError(
            "topology.balance=column: a balanced weight has no free slots, so it cannot drop without growing; "
            "the branch test needs balance=none"
        )
    if run.outer.every > 1:
        raise ConfigError(
            f"outer.every={run.outer.every}: the replicas of this run train apart; the branch test follows one model "
            "and needs outer.every=1"
        )
    if run.init.distills:
        raise ConfigError(
            f"init.distill_weight={run.init.distill_weight:g}, init.feature_weight={run.init.feature_weight:g}: the "
            "branch test has no teacher; it needs a run without one"
        )


def forms_agree(optim: OptimConfig, saturated: int) -> bool:
    """Whether blocks that are ``saturated`` updates older move alike in every form, so one branch stands for three.

    They do where the bias correction ``1 - b^t`` is exactly 1 in float32, the ramp is over, and no weight decays
    (``smet_code`` couples the decay to the gradient). Then only grown blocks tell the forms apart.
    """
    return saturated >= optim.ramp and max(optim.b1, optim.b2) ** saturated < 2.0**-25 and optim.weight_decay == 0.0


def in_form(recipe: Recipe, form: str) -> Recipe:
    """The same run under another optimizer form, every other setting as it was; the state fits all forms."""
    run = dataclasses.replace(recipe.run, optim=dataclasses.replace(recipe.run.optim, form=form))
    return recipe.of(run, recipe.stage)


def without_growth(plan: RewirePlan) -> RewirePlan:
    """The plan that drops the same blocks and leaves their slots free."""
    nothing = {name: jnp.int32(0) for name in plan.grow}
    return dataclasses.replace(plan, grow=nothing, by_gradient=nothing)


def branch_run(
    workdir: RunDirectory, *, steps: int, at: Sequence[int], saturated: int, notice: Notice
) -> list[BranchRow]:
    """The branch test of a run, at every rewiring that follows one of its checkpoints.

    Args:
      workdir: the run directory; nothing in it changes.
      steps: batches of every branch.
      at: steps of the checkpoints to start from; empty takes all of them.
      saturated: updates to add to all ages.
      notice: told what is done.

    Raises:
      ConfigError: there is no such run or checkpoint, the data changed, or nothing can be tested.
    """
    check_runs([workdir])
    there = steps_in(workdir)
    for step in at:
        if step not in there:
            raise ConfigError(f"--at={step}: {workdir} has no checkpoint of step {step}; there are {list(there)}")
    trained = restore_run(workdir, notice)
    run, recipe = trained.run, trained.recipe
    if steps <= run.topology.fade_steps:
        raise ConfigError(f"--steps={steps}: must be above topology.fade_steps={run.topology.fade_steps}")
    corpus = open_corpus(run.data, notice)
    check_same_data(workdir, corpus.data_digest, corpus.tokenizer.digest)
    test = BranchTest(recipe, train_batches(run, corpus, filled_epochs(workdir, run), notice))
    rows = []
    with Checkpoints(
        workdir, keep_last=run.train.keep_last, keep_every=run.train.keep_every, notice=notice, owner=False
    ) as saved:
        found = rewirings(test, at or saved.steps, steps)
        if not found:
            raise ConfigError(
                f"--workdir={workdir}: no rewiring with {steps} steps after it follows the checkpoints "
                f"{list(at) or saved.steps}; lower --steps, or train with a train.keep_every that keeps earlier ones"
            )
        for rewire_step, step in found.items():
            parting = test.parting(load_step(saved, recipe, step), rewire_step, saturated)
            rows += test.rows(workdir.resolve().name, parting, steps, saturated)
            notice(f"rewiring of step {rewire_step}, from the checkpoint of step {step}: {steps} steps, all branches")
    return rows


def rewirings(test: BranchTest, checkpoints: Sequence[int], steps: int) -> dict[int, int]:
    """The rewirings that can be tested, each with the checkpoint nearest before it."""
    found: dict[int, int] = {}
    for step in sorted(checkpoints):
        due = test.rewire_step_after(step, steps)
        if due is not None:
            found[due] = step
    return found
