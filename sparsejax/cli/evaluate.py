"""``sparsejax evaluate``: runs side by side, on their validation text and on any other."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparsejax.cli.console import plain_console
from sparsejax.cli.evaluate_flags import parse
from sparsejax.cli.flags import run_directories
from sparsejax.cli.streams import display_of
from sparsejax.config import ConfigError
from sparsejax.files.outputs import Outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparsejax.scaling.effective import Effective
    from sparsejax.scaling.runs import RunResult
    from sparsejax.scaling.saved_fit import SavedFit
    from sparsejax.training.evaluation import Study
    from sparsejax.training.workdir import RunDirectory


def main(argv: list[str]) -> int:
    """Print losses with their intervals, write a report to --out if asked; returns 0."""
    flags = parse(argv)

    from sparsejax.training.evaluation import Settings, evaluate_runs, named_texts
    from sparsejax.training.evaluation_report import FILES, headline, tables, write_report
    from sparsejax.training.workdir import run_directory

    names = run_directories("workdir", flags.workdir)
    texts = named_texts(flags.text)
    read = [*names, *(part.strip() for _, path in texts for part in path.split(",")), flags.fit or ""]
    out = None if flags.out is None else Outputs(flags.overwrite, read).files("out", flags.out, FILES)
    # What a file keeps is made even if nobody can see it.
    console = plain_console(None if out is None else display_of(sys.stdout))

    def notice(text: str) -> None:
        console.print(text, soft_wrap=True)

    settings = Settings(texts, flags.text_field, flags.validation, flags.tokens, flags.context, flags.weights)
    workdirs = [run_directory(name) for name in names]
    known = None if flags.fit is None else _Known.read(flags.fit, workdirs)
    study = evaluate_runs(workdirs, settings, notice)
    effective, lines = ([], []) if known is None else known.effective(study)
    if len(study.runs) == 1:
        notice(headline(study.runs[0], study.runs[0].texts[0]))
    for table in tables(study, flags.level):
        console.print(table)
    for line in [*study.remarks, *lines]:
        notice(line)
    if out is not None:
        files = write_report(study, flags.level, out, effective, lines)
        notice(f"wrote {', '.join(str(path) for path in files)}")
    return 0


@dataclasses.dataclass(frozen=True)
class _Known:
    """A fit, and what the runs say of their training: None for one that has not finished."""

    fit: SavedFit
    results: dict[str, RunResult | None]

    @classmethod
    def read(cls, fit: str, workdirs: Sequence[RunDirectory]) -> _Known:
        """Read both before the work; raises ``ConfigError``."""
        from sparsejax.scaling.effective import check_fit
        from sparsejax.scaling.runs import read as read_result
        from sparsejax.scaling.saved_fit import published_default, read

        known = published_default() if fit == "published" else read(Path(fit))
        check_fit(known)
        results: dict[str, RunResult | None] = {}
        for workdir in workdirs:
            path = workdir / "result.json"
            try:
                results[str(workdir)] = read_result(path) if path.exists() else None
            except ValueError as error:
                raise ConfigError(str(error)) from None
        return cls(known, results)

    def effective(self, study: Study) -> tuple[list[Effective], list[str]]:
        """Effective dense parameters of the finished runs, and what to say of all."""
        from sparsejax.scaling.effective import effective_lines, effective_parameters

        rows, unfinished = [], []
        for run in study.runs:
            result = self.results[run.run]
            if result is None:
                unfinished.append(f"{run.name}: no result.json, so its training tokens are not known: not finished?")
                continue
            loss = run.texts[0].loss
            if not math.isfinite(loss.value):
                unfinished.append(f"{run.name}: its loss is not a number, so no dense size is as good")
                continue
            rows.append(effective_parameters(self.fit, result, run.name, loss.value, loss.error))
        return rows, effective_lines(self.fit, rows) + unfinished
