"""Tasks of the LM evaluation harness over a model, and their results as JSON."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from sparsejax import __version__
from sparsejax.config import ConfigError
from sparsejax.files.json_records import json_row
from sparsejax.files.text import one_line
from sparsejax.interop.harness_requests import HarnessModel


@dataclasses.dataclass(frozen=True)
class Tasks:
    """What to run.

    Attributes:
      names: of tasks or groups, those of the package or of ``include_path``.
      include_path: folder of task files (YAML) of one's own; empty for none.
      limit: examples of a task; 0 means all.
      shots: examples in front of every question; None is what each task says.
    """

    names: tuple[str, ...]
    include_path: str
    limit: int
    shots: int | None


def require_package() -> None:
    """Raise ``ConfigError`` if the package ``lm_eval`` is not installed."""
    if find_spec("lm_eval") is None:
        raise ConfigError("lm_eval: is not installed; pip install 'sparsejax[lm_eval]'")


def run_tasks(model: HarnessModel, tasks: Tasks) -> dict[str, Any]:
    """Run tasks; what ``lm_eval.simple_evaluate`` returns, without the samples, and the versions.

    Raises:
      ConfigError: the package is missing, or a task is unknown, cannot be loaded, asks for what this program does not
        do, or fails by itself.
    """
    require_package()
    from lm_eval import simple_evaluate

    from sparsejax.interop.lm_eval_model import CheckedTasks, SparsejaxLM

    told, asked = f"--tasks={','.join(tasks.names)}", SparsejaxLM(model=model)
    try:
        # The package has thousands of tasks, and reading their files takes longer than a small task of one's own.
        manager = CheckedTasks(include_path=tasks.include_path or None, include_defaults=False)
        if not set(tasks.names) <= set(manager.all_tasks):
            manager = CheckedTasks(include_path=tasks.include_path or None)
        unknown = [name for name in tasks.names if name not in manager.all_tasks]
        if unknown:
            raise ConfigError(f"{told}: no task {', '.join(unknown)}; --include-path adds your own")
        found = simple_evaluate(
            model=asked,
            tasks=list(tasks.names),
            num_fewshot=tasks.shots,
            limit=tasks.limit or None,
            task_manager=manager,
            log_samples=False,
        )
    except Exception as error:
        # What the model raised is told as everywhere; the rest is of task files, data and their libraries.
        if error is asked.failure or isinstance(error, ConfigError):
            raise
        line = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(f"{told}: {line}; look at the files and the data of the tasks") from error
    versions = {"sparsejax": __version__} | {name: version(name) for name in ("lm_eval", "jax")}
    return {**found, "packages": versions}


def results_text(found: dict[str, Any], conditions: dict[str, Any]) -> str:
    """Results and the conditions they were made under, as JSON."""
    # Task files may hold functions, which are written by their names.
    return json_row({"sparsejax": conditions, **found}, indent=1, named=True) + "\n"


def result_lines(found: dict[str, Any]) -> list[str]:
    """One line a metric: ``task metric value +- standard error``."""
    lines = []
    for task, metrics in found["results"].items():
        for key, value in metrics.items():
            metric, comma, filter_ = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, float):
                continue
            error_key = f"{metric}_stderr,{filter_}"
            error = metrics[error_key] if error_key in metrics else None
            spread = f" +- {error:.4f}" if isinstance(error, float) else ""
            lines.append(f"{task} {metric} {value:.4f}{spread}")
    return lines
