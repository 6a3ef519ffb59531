"""An evaluation as tables on the terminal, and as report.md, evaluation.json, documents.csv and figures in a directory.

``± `` is half the width of an interval over documents, at the level that the report states.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from sparsejax.files.outputs import OutputFiles
from sparsejax.files.places import Place
from sparsejax.training.breakdown import Bin
from sparsejax.training.clusters import Mean
from sparsejax.training.document_losses import Difference, TextEvaluation
from sparsejax.training.evaluation import RunEvaluation, Study
from sparsejax.training.evaluation_figures import FIGURES, draw_figures

SCHEMA = 1
# What a report consists of; frequencies.png only where frequencies were looked at.
FILES = ("report.md", "evaluation.json", "documents.csv", *FIGURES)

# Title, column names, rows of cells.
Cells = tuple[str, tuple[str, ...], list[tuple[str, ...]]]


_WORDS = ("run", "less run", "text")


def tables(study: Study, level: float) -> list[Table]:
    """What the terminal shows: runs on each text, and their paired differences."""
    return [_rich(cells) for cells in _main_cells(study, level)]


def headline(run: RunEvaluation, text: TextEvaluation) -> str:
    """A run on a text in one line."""
    return (
        f"step {run.step}: {text.loss.value:.5f} nats/token, perplexity {text.perplexity:.3f}, "
        f"{text.bits_per_byte.value:.5f} bits/byte on {int(text.tokens.sum()):,} {text.text} tokens"
    )


def write_report(
    study: Study, level: float, out: OutputFiles, effective: Sequence[Any], lines: Sequence[str]
) -> list[Place]:
    """Write everything into the directory ``out``; returns the files.

    Args:
      study: what was computed.
      level: of the intervals.
      out: takes the ``FILES``.
      effective: dataclasses of effective dense parameters, for the JSON; empty for none.
      lines: what is said of them, for the report.
    """
    figures = draw_figures(study)
    found = _json(study, level) | {"effective_dense_parameters": [_plain(one) for one in effective]}
    documents = io.StringIO()
    csv.writer(documents, lineterminator="\n").writerows(_document_rows(study))
    contents: dict[str, str | bytes] = {
        "report.md": _markdown(study, level, list(figures), lines),
        "evaluation.json": json.dumps(found, indent=1, allow_nan=False) + "\n",
        "documents.csv": documents.getvalue(),
        **figures,
    }
    return out.write(contents)


def _main_cells(study: Study, level: float) -> list[Cells]:
    found = [_text_cells(study, name, level) for name in _text_names(study)]
    if study.differences:
        columns = ("text", "run", "less run", "difference", "unit", "better on", "docs")
        rows = [_difference_row(one, level) for one in study.differences]
        title = f"paired differences, document by document, ± at {100 * level:g} %"
        found.append((title, columns, rows))
    return found


def _text_cells(study: Study, name: str, level: float) -> Cells:
    columns = ("run", "docs", "tokens", "nats/token", "perplexity", "bits/byte", "ECE")
    rows: list[tuple[str, ...]] = []
    for run, text in _on(study, name):
        rows.append(
            (
                run.name,
                f"{text.loss.documents:,}",
                f"{int(text.tokens.sum()):,}",
                _with_half_width(text.loss, level),
                f"{text.perplexity:.2f}",
                _with_half_width(text.bits_per_byte, level),
                f"{text.calibration.error:.3f}",
            )
        )
    return f"{name}, ± at {100 * level:g} % over documents", columns, rows


def _difference_row(one: Difference, level: float) -> tuple[str, ...]:
    half = one.difference.half_width(level)
    value = _number(one.difference.value, "+.5f") + ("" if np.isnan(half) else f" ± {half:.5f}")
    return one.text, one.other, one.first, value, one.unit, _number(one.better, ".0%"), f"{one.difference.documents:,}"


def _bin_cells(study: Study, name: str, what: str, level: float) -> Cells | None:
    """Bins of one text, a column a run; None where there are none."""
    found = {run.name: _bins(text, what) for run, text in _on(study, name)}
    labels = list(dict.fromkeys(one.label for bins in found.values() for one in bins))
    if not labels:
        return None
    rows = []
    for label in labels:
        row = [label]
        for bins in found.values():
            one = next((each for each in bins if each.label == label), None)
            row += ["-", "-"] if one is None else [f"{one.tokens:,}", _with_half_width(one.loss, level)]
        rows.append(tuple(row))
    columns = tuple(title for run in found for title in (f"tokens, {run}", f"nats/token, {run}"))
    return f"{name}: loss by {what}", (what, *columns), rows


def _bins(text: TextEvaluation, what: str) -> list[Bin]:
    return text.positions if what == POSITION else text.frequencies


POSITION, FREQUENCY = "position in the context", "occurrences a million training tokens"


def _with_half_width(mean: Mean, level: float) -> str:
    half = mean.half_width(level)
    return f"{mean.value:.4f}" + ("" if math.isnan(half) else f" ± {half:.4f}")


def _markdown(study: Study, level: float, figures: Sequence[str], lines: Sequence[str]) -> str:
    settings = study.settings
    read = {
        "rows": "rows cut from the concatenated documents, as in training; a token may see the end of another document",
        "documents": "each document by itself, in windows that begin with the start token",
    }[settings.context]
    weights = {"raw": "as trained", "ema": "averaged (exponential moving average)"}[settings.weights]
    found = [
        "# Evaluation",
        "",
        f"Context: {read}. Weights: {weights}. Intervals: {100 * level:g} %, over documents; they say",
    ]
    found[-1] += " what other documents would show, nothing of other seeds."
    found += [f"\n{remark}." for remark in study.remarks]
    for cells in _main_cells(study, level):
        found += ["", *_markdown_table(cells)]
    if lines:
        found += ["", "## Effective dense parameters", "", *[f"- {line}" for line in lines]]
    for name in _text_names(study):
        for what in (POSITION, FREQUENCY):
            cells_or_none = _bin_cells(study, name, what, level)
            if cells_or_none is not None:
                found += ["", *_markdown_table(cells_or_none)]
    for figure in figures:
        found += ["", f"![{figure.removesuffix('.png')}]({figure})"]
    return "\n".join(found) + "\n"


def _markdown_table(cells: Cells) -> list[str]:
    title, columns, rows = cells
    lines = [f"## {title}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def _rich(cells: Cells) -> Table:
    title, columns, rows = cells
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left")
    for column in columns:
        # Names may be long and are folded; numbers never are.
        words = column in _WORDS
        table.add_column(
            column,
            justify="left" if words else "right",
            overflow="fold",
            no_wrap=not words,
            min_width=6 if words else None,
        )
    for row in rows:
        table.add_row(*row)
    return table


def _json(study: Study, level: float) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "level": level,
        "settings": _plain(study.settings),
        "remarks": list(study.remarks),
        "runs": [
            {
                "run": run.run,
                "name": run.name,
                "step": run.step,
                "tokenizer_digest": run.tokenizer_digest,
                "sequence_length": run.sequence_length,
                "texts": [_text_json(text, level) for text in run.texts],
            }
            for run in study.runs
        ],
        "differences": [
            _plain(one) | {"interval": [_finite(end) for end in one.difference.interval(level)]}
            for one in study.differences
        ],
    }


def _text_json(text: TextEvaluation, level: float) -> dict[str, Any]:
    return {
        "text": text.text,
        "digest": text.digest,
        "documents": text.loss.documents,
        "tokens": int(text.tokens.sum()),
        "bytes": float(text.bytes.sum()),
        "loss": _mean_json(text.loss, level),
        "perplexity": _finite(text.perplexity),
        "bits_per_byte": _mean_json(text.bits_per_byte, level),
        "loss_by_position": [_finite(value) for value in text.position_loss.tolist()],
        "loss_by_position_bin": [_plain(one) for one in text.positions],
        "loss_by_frequency": [_plain(one) for one in text.frequencies],
        "calibration": _plain(text.calibration),
    }


def _mean_json(mean: Mean, level: float) -> dict[str, Any]:
    return _plain(mean) | {"interval": [_finite(end) for end in mean.interval(level)]}


def _plain(value: Any) -> Any:
    """A dataclass as JSON knows it: what is not finite becomes null."""
    return _finite(dataclasses.asdict(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _document_rows(study: Study) -> Iterator[list[Any]]:
    yield ["text", "document", "run", "nats", "tokens", "bytes", "whole"]
    for run in study.runs:
        for text in run.texts:
            columns = text.nll.tolist(), text.tokens.tolist(), text.bytes.tolist(), text.complete.tolist()
            for number, (nats, tokens, size, whole) in enumerate(zip(*columns, strict=True)):
                yield [text.text, number, run.name, repr(nats), int(tokens), repr(size), int(whole)]


def _text_names(study: Study) -> list[str]:
    return list(dict.fromkeys(text.text for run in study.runs for text in run.texts))


def _on(study: Study, name: str) -> list[tuple[RunEvaluation, TextEvaluation]]:
    return [(run, text) for run in study.runs for text in run.texts if text.text == name]


def _number(value: float, form: str) -> str:
    return "-" if np.isnan(value) else format(value, form)
