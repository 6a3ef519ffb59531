"""What the loop does for the topology after a step: score, fade, rewire, cut slots, and log it."""

from __future__ import annotations

import math

import jax
import numpy as np

from sparsejax.training import programs
from sparsejax.training.feed import Batch, on_host
from sparsejax.training.growth_scores import NO_SCORES, Scores, wants_scores
from sparsejax.training.metrics import SilentLog
from sparsejax.training.recipe import Recipe
from sparsejax.training.resize import slots_of
from sparsejax.training.rewire_plan import is_due, next_due, plan_at, rate_at
from sparsejax.training.state import TrainState


class Rewirer:
    """Changes the topology of a run when it is due. Its programs compile when they are first needed."""

    def __init__(self, recipe: Recipe, log: SilentLog) -> None:
        """Compile nothing yet."""
        self.log = log
        self.scores = NO_SCORES
        self._use(recipe)

    def _use(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.rewire_step = programs.rewire_step(recipe)
        self.fade_step = programs.fade_step(recipe)
        self.eval_step = programs.eval_step(recipe)
        self.score_step = programs.score_step(recipe) if recipe.rewires else None

    def after_step(self, state: TrainState, step: int, batch_BT: Batch) -> TrainState:
        """Whatever the topology needs after ``step``, which trained on ``batch_BT``.

        If the slots were cut, ``self.recipe`` is another one afterwards and the programs of the loop must follow.
        """
        if self.score_step is not None and wants_scores(self.recipe, step):
            state, self.scores = self.score_step(state, batch_BT)
        state = self._fade(state, step)
        return self._rewire(state, step, batch_BT) if is_due(self.recipe, step) else state

    def _fade(self, state: TrainState, step: int) -> TrainState:
        fade_steps = self.recipe.run.topology.fade_steps
        due = next_due(self.recipe, step) if fade_steps and self.recipe.rewires else None
        if due is None or due - step >= fade_steps:
            return state
        # 1 falls to 0 in equal steps: what is left after this step over what was left before.
        left = due - step
        return self.fade_step(state, on_host(plan_at(self.recipe, due)), np.float32(left / (left + 1)))

    def _rewire(self, state: TrainState, step: int, batch_BT: Batch) -> TrainState:
        plan = plan_at(self.recipe, step)
        before = self._loss(state, batch_BT)
        state, metrics = self.rewire_step(state, on_host(plan), self.scores)
        self.scores = Scores({}, {})
        row = {name: float(value) for name, value in jax.device_get(metrics).items()}
        row |= {
            "topology/rate": rate_at(self.recipe, step),
            "topology/loss_before": before,
            "topology/loss_after": self._loss(state, batch_BT),
        }
        # The first rewiring has no growth before it that could have survived.
        self.log.write("rewire", step, {name: value for name, value in row.items() if math.isfinite(value)})
        later = self.recipe.at_stage(step)
        if slots_of(later.sparse) != slots_of(self.recipe.sparse):
            state = programs.resize_step(self.recipe.sparse, later)(state)
            self._use(later)
        return state

    def _loss(self, state: TrainState, batch_BT: Batch) -> float:
        """Loss of the batch just trained on: its change is what the rewiring did, nothing else moved."""
        sums = jax.device_get(self.eval_step(state.params, state.topology, batch_BT))
        return float(sums.nll / max(sums.tokens, 1.0))
