"""``sparsejax evaluate``: runs side by side, on their validation text and on any other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sparsejax.cli.flags import FlagParser, run_directories
from sparsejax.config import ConfigError

if TYPE_CHECKING:
    from sparsejax.scaling.effective import Effective
    from sparsejax.training.evaluation import Study


def main(argv: list[str]) -> int:
    """Print losses with their intervals, write a report to --out if asked; returns 0."""
    flags = _flags(argv)

    from sparsejax.training.evaluation import Settings, evaluate_runs, named_texts
    from sparsejax.training.evaluation_report import headline, tables, write_report
    from sparsejax.training.workdir import run_directory

    console = Console()

    def notice(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    texts = named_texts(flags.text)
    settings = Settings(texts, flags.text_field, flags.validation, flags.tokens, flags.context, flags.weights)
    workdirs = [run_directory(name) for name in run_directories("workdir", flags.workdir)]
    study = evaluate_runs(workdirs, settings, notice)
    effective, lines = ([], []) if flags.fit is None else _effective(flags.fit, study)
    if len(study.runs) == 1:
        notice(headline(study.runs[0], study.runs[0].texts[0]))
    for table in tables(study, flags.level):
        console.print(table)
    for line in [*study.remarks, *lines]:
        notice(line)
    if flags.out is not None:
        files = write_report(study, flags.level, flags.out, effective, lines)
        notice(f"wrote {', '.join(str(path) for path in files)}")
    return 0


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = FlagParser(
        "evaluate",
        "Loss, perplexity and bits per byte of runs, with intervals over documents and paired differences.",
        "--text=name=path names a source of its own; files are .jsonl, .parquet, .tfrecord, .array_record or plain "
        "text, also .gz and .xz, here or in a bucket.",
    )
    parser.add_argument("--workdir", required=True, help="run directories or gs://bucket/run, comma-separated")
    parser.add_argument("--tokens", type=int, default=0, help="most tokens of each text; 0 means all")
    parser.add_argument("--text", action="append", default=[], help="[name=]files of another text; may be repeated")
    parser.add_argument("--text-field", default="text", help="field or column of the text, where there are several")
    parser.add_argument(
        "--validation", action=argparse.BooleanOptionalAction, default=True, help="the runs' own validation text too"
    )
    parser.add_argument("--context", choices=("rows", "documents"), default="rows", help="what a token is read in")
    parser.add_argument("--weights", choices=("raw", "ema"), default="raw", help="as trained, or their average")
    parser.add_argument("--fit", help="fit.json, or 'published': the law that says what dense size is as good")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals")
    parser.add_argument("--out", type=Path, help="new directory for report.md, evaluation.json, documents.csv, figures")
    flags = parser.parse_args(argv)
    if flags.tokens < 0:
        parser.error(f"--tokens={flags.tokens}: must be at least 0")
    if not 0.5 <= flags.level < 1:
        parser.error(f"--level={flags.level:g}: must be in [0.5, 1)")
    if not flags.validation and not flags.text:
        parser.error("--no-validation: leaves nothing to evaluate; give --text")
    if not flags.validation and flags.fit is not None:
        parser.error(f"--fit={flags.fit}: needs the validation loss; leave --no-validation out")
    if flags.out is not None and flags.out.exists():
        parser.error(f"--out={flags.out}: exists already; choose a new directory")
    return flags


def _effective(fit: str, study: Study) -> tuple[list[Effective], list[str]]:
    """Effective dense parameters of the finished runs, and what to say of all."""
    from sparsejax.scaling.effective import effective_lines, effective_parameters
    from sparsejax.scaling.runs import read as read_result
    from sparsejax.scaling.saved_fit import published_default, read
    from sparsejax.training.workdir import run_directory

    known = published_default() if fit == "published" else read(Path(fit))
    rows, unfinished = [], []
    for run in study.runs:
        path = run_directory(run.run) / "result.json"
        if not path.exists():
            unfinished.append(f"{run.name}: no result.json, so its training tokens are not known: not finished?")
            continue
        try:
            result = read_result(path)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        loss = run.texts[0].loss
        rows.append(effective_parameters(known, result, run.name, loss.value, loss.error))
    return rows, effective_lines(known, rows) + unfinished
