"""Rows of ``metrics.jsonl``: strict JSON, one a line, each with a check value that a changed bit changes.

Rows of older runs have no check value, and may hold ``NaN``, which JSON does not have; both are read.
"""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from sparsejax.config import ConfigError
from sparsejax.files.json_records import NOT_FINITE, json_row
from sparsejax.files.text import lines_of
from sparsejax.training.workdir import RunDirectory

Row = dict[str, Any]

_CHECK = ', "check": "'
# How a line with a check value ends; one that ends so under another key is damaged there.
_END = re.compile(r': "[0-9a-f]{8}"}$')


@dataclasses.dataclass(frozen=True)
class Log:
    """What a file of rows holds.

    Attributes:
      rows: those that are whole, in their order.
      lines: the same as text, each to be written again as it is.
      damaged: numbers of the lines, from 1, that are not what was written.
    """

    rows: list[Row]
    lines: list[str]
    damaged: list[int]


def row_line(row: Mapping[str, Any]) -> str:
    """A row as a line of the file, its check value last; a number that is not finite is null, and is named."""
    return _with_check(json_row(row))


def _with_check(text: str) -> str:
    """A JSON object as text, with a check value of that text as its last key."""
    return f'{text[:-1]}{_CHECK}{zlib.crc32(text.encode()):08x}"}}'


def read_log(path: RunDirectory) -> Log:
    """Read a ``metrics.jsonl``; a torn last line (the process was killed) is left out without a word."""
    log = Log([], [], [])
    content = path.read_bytes() if path.exists() else b""
    text = content.decode("utf-8", "replace")
    lines = list(lines_of(text))
    whole = len(lines) if text.endswith("\n") else len(lines) - 1
    checked = False
    for number, line in enumerate(lines, start=1):
        row = _row_of(line, checked)
        if row is not None:
            checked = checked or _CHECK in line
            log.rows.append(row)
            log.lines.append(line if _CHECK in line else row_line(row))
        elif number <= whole:
            log.damaged.append(number)
    return log


def read_rows(path: RunDirectory) -> list[Row]:
    """All rows of a ``metrics.jsonl``, those of no file if it is not there.

    Raises:
      ConfigError: a row is not what was written.
    """
    return whole_log(path).rows


def whole_log(path: RunDirectory) -> Log:
    """Read a ``metrics.jsonl`` as ``read_log``; raises ``ConfigError`` if a row is not what was written."""
    log = read_log(path)
    if log.damaged:
        raise ConfigError(
            f"{path}: line {log.damaged[0]} is not what was written; restore the file from a copy, or delete the line"
        )
    return log


def _row_of(line: str, checked: bool) -> Row | None:
    """The row of a line, None if it is damaged; behind a row with a check value (``checked``) all have one."""
    head, mark, _ = line.rpartition(_CHECK)
    text = f"{head}}}" if mark else line
    if line != _with_check(text) if mark else checked or _END.search(line):
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not {"step", "kind"} <= row.keys():
        return None
    if type(row["step"]) is not int or type(row["kind"]) is not str:
        return None
    for name, number in (row.pop(NOT_FINITE) if NOT_FINITE in row else {}).items():
        if name in row:
            row[name] = float(number)
    return row
