"""What the loop does for replicas that train apart: let them meet when it is due, log it, and read their metrics."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from sparsejax.training import programs
from sparsejax.training.metrics import SilentLog
from sparsejax.training.outer import meets, slow_traffic
from sparsejax.training.recipe import Recipe
from sparsejax.training.state import TrainState
from sparsejax.training.steps import Metrics


class EveryStep:
    """For a run whose gradients are summed every step: there is nothing left to do."""

    def after_step(self, state: TrainState, step: int) -> TrainState:
        """The state as it is."""
        del step
        return state

    def read(self, window: Sequence[Metrics]) -> list[Metrics]:
        """Metrics of some steps, on the host."""
        return list(jax.device_get(window))

    def skipped_in_row(self, metrics: Metrics, step: int) -> int:
        """Steps without an update, in a row, as ``metrics`` has them; ``step`` were done."""
        del step
        return int(metrics["skipped_in_row"])


class Meeting(EveryStep):
    """For replicas that train apart. Between meetings it asks nothing of them, except for a row of the log."""

    def __init__(self, recipe: Recipe, log: SilentLog) -> None:
        """Compile nothing yet."""
        self.recipe, self.log = recipe, log
        self.meet_step = programs.meet_step(recipe)
        self.combined = programs.combined_metrics(recipe)
        self.traffic = slow_traffic(recipe)

    def after_step(self, state: TrainState, step: int) -> TrainState:
        """The state after the meeting that is due after ``step``, or as it is."""
        if not meets(self.recipe, step):
            return state
        state, metrics = self.meet_step(state)
        row = {
            "outer/update_norm": float(metrics["update_norm"]),
            "outer/bytes": self.traffic.meeting,
            "outer/bytes_per_step": self.traffic.step,
            "outer/share_of_all_reduce": self.traffic.share,
        }
        self.log.write("meeting", step, row)
        return state

    def read(self, window: Sequence[Metrics]) -> list[Metrics]:
        """Metrics of some steps, put together from the replicas'; a few numbers a step cross the slow link for it."""
        return list(jax.device_get(self.combined(list(window))))

    def skipped_in_row(self, metrics: Metrics, step: int) -> int:
        """Of the replica that has most, looked at where they meet; 0 between meetings."""
        return int(self.read([metrics])[0]["skipped_in_row"]) if meets(self.recipe, step) else 0


def meeting_of(recipe: Recipe, log: SilentLog) -> EveryStep:
    """What the run of ``recipe`` needs."""
    return Meeting(recipe, log) if recipe.replicas > 1 else EveryStep()
