"""Finished runs as one CSV file: every field of every ``result.json``, so that a fit can be made again from it alone.

One line a run, sorted by name, floats as Python prints them (they read back to the same bits), blocks as ``8x8``,
versions as JSON. The name of a run is its directory below the one that was read.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from sparsejax.config import ConfigError
from sparsejax.files.text import one_line
from sparsejax.scaling.runs import SCHEMA, RunResult, typed_row

FIELDS = tuple(field.name for field in dataclasses.fields(RunResult))


def table_text(results: Sequence[RunResult]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for result in sorted(results, key=lambda result: result.name):
        writer.writerow([_text(getattr(result, name)) for name in FIELDS])
    return text.getvalue()


def result_of(record: Mapping[str, str], place: str) -> RunResult:
    """One line of such a file; raises ``ConfigError`` on a cell that is not what its column holds.

    Args:
      record: cells by column.
      place: file and line, for errors.
    """
    if record["schema"] != str(SCHEMA):
        raise ConfigError(f"{place}: schema {one_line(record['schema'])} is not {SCHEMA}, the one this version reads")
    hints = get_type_hints(RunResult)
    return typed_row({name: _value(place, name, hints[name], record[name]) for name in FIELDS}, place)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)


def _value(place: str, name: str, kind: Any, text: str) -> Any:
    if kind is str:
        return text
    try:
        if kind is bool:
            # Spreadsheets write TRUE and FALSE.
            return {"true": True, "false": False}[text.lower()]
        if name == "block":
            rows, columns = map(int, text.split("x"))
            return [rows, columns]
        return kind(text) if kind in (int, float) else json.loads(text)
    except (ValueError, KeyError, RecursionError):
        what = getattr(kind, "__name__", kind)
        raise ConfigError(f"{place}, column {name}: {one_line(repr(text), 60)} is not of type {what}") from None
