"""The flags of ``sparsejax evaluate``."""

from __future__ import annotations

import argparse

from sparsejax.cli.flags import FlagParser


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags; raises ``ConfigError`` for those that leave nothing to do or cannot be."""
    parser = FlagParser(
        "evaluate",
        "Loss, perplexity and bits per byte of runs, with intervals over documents and paired differences.",
        "--text=name=path names a source of its own; files are .jsonl, .parquet, .tfrecord, .array_record or plain "
        "text, compressed or not, here or in a bucket.",
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
    parser.add_argument("--out", help="directory for report.md, evaluation.json, documents.csv and figures")
    parser.add_overwrite()
    flags = parser.parse_args(argv)
    if flags.tokens < 0:
        parser.error(f"--tokens={flags.tokens}: must be at least 0")
    if not 0.5 <= flags.level < 1:
        parser.error(f"--level={flags.level:g}: must be in [0.5, 1)")
    if not flags.validation and not flags.text:
        parser.error("--no-validation: leaves nothing to evaluate; give --text")
    if not flags.validation and flags.fit is not None:
        parser.error(f"--fit={flags.fit}: needs the validation loss; leave --no-validation out")
    if flags.context != "rows" and flags.fit is not None:
        parser.error(f"--fit={flags.fit}: laws are of losses in rows; leave --context={flags.context} out")
    return flags
