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

from sparsejax.scaling.runs import SCHEMA, RunResult

FIELDS = tuple(field.name for field in dataclasses.fields(RunResult))


def table_text(results: Sequence[RunResult]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for result in sorted(results, key=lambda result: result.name):
        writer.writerow([_text(getattr(result, name)) for name in FIELDS])
    return text.getvalue()


def result_of(record: Mapping[str, str]) -> RunResult:
    """One line of such a file; raises ``ValueError`` on a cell that is not what its field holds."""
    if record["schema"] != str(SCHEMA):
        raise ValueError(f"schema {record['schema']} is not {SCHEMA}, the one this version reads")
    hints = get_type_hints(RunResult)
    return RunResult(**{name: _value(name, hints[name], record[name]) for name in FIELDS})


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)


def _value(name: str, kind: Any, text: str) -> Any:
    try:
        if kind is bool:
            return {"True": True, "False": False}[text]
        if kind in (int, float, str):
            return kind(text)
        if name == "block":
            rows, columns = map(int, text.split("x"))
            return rows, columns
        return json.loads(text)
    except (ValueError, KeyError):
        raise ValueError(f"{name}={text!r} is not of type {getattr(kind, '__name__', kind)}") from None
