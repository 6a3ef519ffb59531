"""``HarnessModel`` as a model of the package ``lm_eval``, registered there as ``sparsejax``.

The only file that imports the package, so everything else works without it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.tasks import TaskManager

from sparsejax.config import ConfigError
from sparsejax.interop.harness_requests import HarnessModel, check_generation
from sparsejax.interop.open_model import open_model


class CheckedTasks(TaskManager):
    """The tasks of the package, whose generation arguments are checked when they are loaded, before any is run."""

    def load(self, task_list: Any) -> Any:
        """Load tasks and groups; raises ``ConfigError`` for arguments that cannot be obeyed."""
        loaded = super().load(task_list)
        for name, task in loaded["tasks"].items():
            if task.get_config("output_type") == "generate_until":
                try:
                    check_generation(task.get_config("generation_kwargs") or {})
                except ConfigError as error:
                    raise ConfigError(f"task {name}: {error}") from None
        return loaded


@register_model("sparsejax")
class SparsejaxLM(LM):
    """The three requests of the harness, answered by a ``HarnessModel``.

    ``lm_eval.simple_evaluate(model="sparsejax", model_args={"workdir": "runs/a"}, ...)`` opens a run or an export on
    all devices of this process.
    """

    def __init__(self, workdir: str = "", length: int = 0, batch_size: int = 16, model: HarnessModel | None = None):
        """Open ``workdir``, or take a ``model`` that is open already.

        Args:
          workdir: a run, an export or a LLaMA checkpoint; not read if there is a ``model``.
          length: tokens of the longest context; 0 is the training length.
          batch_size: rows of a batch.
          model: what answers.
        """
        super().__init__()
        if model is None:
            opened = open_model(Path(workdir), print)
            model = HarnessModel(
                opened.engine(jax.devices()),
                opened.tokenizer,
                int(length) or opened.length,
                int(batch_size),
                opened.end_ids,
            )
        self.model = model
        # What answering raised last, which is no fault of a task.
        self.failure: Exception | None = None

    def _answers(self, answer: Callable[[Any], Any], asked: list[Any]) -> Any:
        try:
            return answer(asked)
        except Exception as error:
            self.failure = error
            raise

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """``(log-likelihood, is greedy)`` of every ``(context, continuation)``."""
        scores = self._answers(self.model.loglikelihood, [request.args for request in requests])
        answers = [(score.log_likelihood, score.greedy) for score in scores]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-likelihood of every ``(text,)``."""
        answers: list[float] = self._answers(
            self.model.loglikelihood_rolling, [request.args[0] for request in requests]
        )
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answer)
        return answers

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Text behind every ``(context, generation arguments)``."""
        answers: list[str] = self._answers(self.model.generate_until, [request.args for request in requests])
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, answer)
        return answers
