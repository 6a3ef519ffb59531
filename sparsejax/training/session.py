"""One session of a run: the steps between a start and an end, and what is due after each.

"Step" s means: s batches have been consumed. What is due after step s happens in this order: log row, meeting of
replicas that train apart, scores and rewiring, evaluation, checkpoint. So a checkpoint of step s holds the topology
after the rewiring of step s, and a resumed run continues with batch s.

Processes that share a run go through this in step with each other: nothing here depends on what only one of them knows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time

from sparsejax.data.pipeline import Corpus, TrainBatches, validation_batches
from sparsejax.optim.weight_average import averaged_weights
from sparsejax.training import programs
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.evaluate import Evaluation, evaluate
from sparsejax.training.feed import Batch, Feed
from sparsejax.training.meeting import meeting_of
from sparsejax.training.metrics import SilentLog
from sparsejax.training.profile import StepProfiler
from sparsejax.training.progress import ProgressDisplay
from sparsejax.training.recipe import Recipe
from sparsejax.training.result import write_result
from sparsejax.training.rewire_plan import is_due
from sparsejax.training.rewirer import Rewirer
from sparsejax.training.sharding import batch_sharding
from sparsejax.training.shared_interrupts import SharedInterrupts
from sparsejax.training.state import TrainState, Tree
from sparsejax.training.steps import Metrics
from sparsejax.training.throughput import StepFlops, Throughput
from sparsejax.training.watchdog import Watchdog
from sparsejax.training.workdir import RunDirectory

DIVERGED = 4


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of ``train`` ended.

    Attributes:
      exit_code: 0 finished, 4 diverged, 75 preempted and saved, 130 Ctrl-C and saved.
      step: steps done.
      recipe, state, corpus: what was trained, for reports and samples.
      evaluation: validation loss at the end, None unless finished.
    """

    exit_code: int
    step: int
    recipe: Recipe
    state: TrainState
    corpus: Corpus
    evaluation: Evaluation | None


class Session:
    """A session of a run: from the state it starts with to the end, or to a request to stop."""

    def __init__(
        self,
        recipe: Recipe,
        corpus: Corpus,
        batches: TrainBatches,
        checkpoints: Checkpoints,
        interrupts: SharedInterrupts,
        watchdog: Watchdog,
        log: SilentLog,
        display: ProgressDisplay,
        workdir: RunDirectory,
        teacher: Tree | None = None,
    ) -> None:
        """Compile nothing yet; ``run`` does the work. ``teacher``: what a run learns from, see ``distill``."""
        self.corpus, self.batches = corpus, batches
        self.checkpoints, self.interrupts, self.watchdog = checkpoints, interrupts, watchdog
        self.log, self.display, self.workdir = log, display, workdir
        self.rewirer = Rewirer(recipe, log)
        self.teacher = () if teacher is None else (teacher,)
        shape = recipe.run.train.batch_size, recipe.run.data.sequence_length
        self.feed = Feed(None if recipe.mesh is None else batch_sharding(recipe), shape)
        self.rates = self.feed.everywhere(recipe.rates)
        self._use(recipe)
        self.saved_step = -1
        self.window: list[Metrics] = []
        self.window_flops: list[StepFlops] = []
        self.window_start = time.monotonic()
        self.session_start = time.monotonic()
        self.data_wait = 0.0

    def _use(self, recipe: Recipe) -> None:
        """Take the programs of ``recipe``; again whenever the slots of the weights were cut."""
        self.recipe = recipe
        self.train_step = programs.train_step(recipe)
        self.eval_step = programs.eval_step(recipe)
        self.meeting = meeting_of(recipe, self.log)
        self.throughput = Throughput(recipe)

    def run(self, state: TrainState) -> Outcome:
        """Train from ``state`` on; returns what happened (see ``Outcome``)."""
        train, step = self.recipe.run.train, int(state.step)
        start = step
        evaluation: Evaluation | None = None
        previous: Metrics | None = None
        if step == 0 and self.recipe.run.init.from_:
            # What making it sparse cost.
            self._evaluate(state, step)
        with contextlib.ExitStack() as stack:
            traced = train.profile_steps if self.log.writes else 0
            profiler = stack.enter_context(StepProfiler(self.log.board, train.profile_start, traced))
            stream = self.batches.iterate(step, self.feed.parts, self.feed.of)
            while step < self.recipe.steps and not self.interrupts.requested():
                profiler.before(step)
                waited = time.monotonic()
                batch_BT = self.feed.place(next(stream))
                self.data_wait += time.monotonic() - waited
                state, metrics = self.train_step(state, batch_BT, self.rates, *self.teacher)
                step += 1
                self.window.append(metrics)
                self.window_flops.append(self.throughput.of_step(step))
                # Looking at the step before keeps one step in flight; a skipped step changed nothing, so late is safe.
                known = metrics if step == self.recipe.steps else previous
                if known is not None and self.meeting.skipped_in_row(known, step) >= train.nonfinite_limit:
                    return self._diverged(state, step)
                previous = metrics
                state, evaluation = self._after_step(state, step, batch_BT)
                profiler.after(step, state)
                self.watchdog.beat()
        return self._end(state, step, evaluation, trained=step > start)

    def _after_step(self, state: TrainState, step: int, batch_BT: Batch) -> tuple[TrainState, Evaluation | None]:
        """Everything due after ``step``, in the order the module promises."""
        run, last = self.recipe.run, step == self.recipe.steps
        evaluation = None
        if self.recipe.run.topology.grow != "none" and is_due(self.recipe, step - 1):
            (last_metrics,) = self.meeting.read(self.window[-1:])
            ratio = float(last_metrics["regrown_update"])
            # A step that was skipped updated nothing.
            if math.isfinite(ratio):
                self.log.write("regrowth", step, {"topology/regrown_update": ratio})
        saves = step % run.train.checkpoint_every == 0 or last
        if step % run.train.log_every == 0 or saves:
            self._log(step)
        paused = time.monotonic()
        state = self.meeting.after_step(state, step)
        state = self.rewirer.after_step(state, step, batch_BT)
        if self.rewirer.recipe is not self.recipe:
            self._use(self.rewirer.recipe)
        if last or (run.train.eval_every and step % run.train.eval_every == 0):
            evaluation = self._evaluate(state, step)
        if saves:
            self._save(state, step)
        self.window_start += time.monotonic() - paused
        return state, evaluation

    def _end(self, state: TrainState, step: int, evaluation: Evaluation | None, trained: bool) -> Outcome:
        if self.interrupts.requested() and (step < self.recipe.steps or evaluation is None):
            if self.window:
                self._log(step)
            self._save(state, step)
            self.checkpoints.wait()
            self.display.say(f"stopped on request after step {step}, saved; the same command continues")
            return self._outcome(self.interrupts.exit_code, state, step, None)
        if evaluation is None:
            evaluation = self._evaluate(state, step)
        if evaluation is None:
            return self._outcome(self.interrupts.exit_code, state, step, None)
        self.checkpoints.wait()
        self.log.flush()
        if not trained and (self.workdir / "result.json").exists():
            return self._outcome(0, state, step, evaluation)
        if self.log.writes:
            seconds = self.log.previous_seconds + time.monotonic() - self.session_start
            write_result(self.workdir, self.recipe, self.corpus, self.batches, evaluation, seconds)
        return self._outcome(0, state, step, evaluation)

    def _diverged(self, state: TrainState, step: int) -> Outcome:
        self._log(step)
        self.checkpoints.wait()
        kept = self.checkpoints.steps
        self.display.say(
            f"diverged: {self.recipe.run.train.nonfinite_limit} steps in a row with a non-finite loss or gradient "
            f"(step {step}); nothing was updated by them, the last good checkpoint is {kept[-1] if kept else 'none'}"
        )
        return self._outcome(DIVERGED, state, step, None)

    def _outcome(self, code: int, state: TrainState, step: int, evaluation: Evaluation | None) -> Outcome:
        return Outcome(code, step, self.recipe, state, self.corpus, evaluation)

    def _log(self, step: int) -> None:
        if not self.window:
            return
        window = self.meeting.read(self.window)
        now = time.monotonic()
        losses = [float(metrics["loss"]) for metrics in window]
        seconds = max(now - self.window_start, 1e-9)
        tokens = [float(metrics["tokens"]) for metrics in window]
        tokens_per_second = sum(tokens) / seconds
        flops = list(zip(self.window_flops, tokens, strict=True))
        places = self.recipe.run.train.batch_size * self.recipe.run.data.sequence_length
        last = window[-1]
        rate = float(self.rates[max(step - 1 - int(last["skipped"]), 0)])
        self.log.write(
            "train",
            step,
            {
                "loss": losses[-1],
                "loss_mean": sum(losses) / len(losses),
                "loss_max": max(losses),
                "grad_norm": float(last["grad_norm"]),
                "log_z2": float(last["log_z2"]),
                "learning_rate": rate,
                "skipped": int(last["skipped"]),
                "epoch": self.batches.epoch_of(step - 1),
                "total_tokens": self.batches.tokens_of(step),
                "tokens_per_second": tokens_per_second,
                "data_wait": self.data_wait,
                "seconds": self.log.previous_seconds + now - self.session_start,
            }
            | {name: float(last[name]) for name in ("divergence", "feature_error") if name in last}
            | self.throughput.row(
                sum(each.executed * places for each, _ in flops) / seconds,
                sum(each.theoretical * count for each, count in flops) / seconds,
            ),
        )
        self.display.update(step, losses[-1], tokens_per_second, rate)
        self.window, self.window_flops, self.window_start, self.data_wait = [], [], now, 0.0

    def _evaluate(self, state: TrainState, step: int) -> Evaluation | None:
        """Evaluate the weights, and their average where one is kept; None if asked to stop before the end."""
        found = self._evaluate_weights(state, state.params)
        average = averaged_weights(state.opt_state)
        of_average = None if average is None or found is None else self._evaluate_weights(state, average)
        if found is None or (average is not None and of_average is None):
            return None
        row = {"loss": found.loss, "bits_per_byte": found.bits_per_byte, "tokens": found.tokens}
        said = f"step {step}: validation loss {found.loss:.4f}, {found.bits_per_byte:.4f} bits/byte"
        if of_average is not None:
            row["ema_loss"] = of_average.loss
            said += f"; of the averaged weights {of_average.loss:.4f}"
        self.log.write("eval", step, row)
        self.display.say(said)
        return found

    def _evaluate_weights(self, state: TrainState, params: Tree) -> Evaluation | None:
        run, split = self.recipe.run, self.corpus.validation
        tokens = min(run.train.eval_tokens, split.tokens)
        rows = validation_batches(
            split,
            run.data.sequence_length,
            run.train.batch_size,
            tokens,
            self.feed.parts,
            self.feed.of,
        )
        return evaluate(
            self.eval_step,
            params,
            state.topology,
            map(self.feed.place, rows),
            self.corpus.validation_bytes.between(0, tokens),
            self._stops_evaluation,
        )

    def _stops_evaluation(self) -> bool:
        self.watchdog.beat()
        return self.interrupts.requested()

    def _save(self, state: TrainState, step: int) -> None:
        if step == self.saved_step:
            return
        self.log.flush()
        self.checkpoints.save(state, self.recipe.run.to_dict())
        self.saved_step = step
