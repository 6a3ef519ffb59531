"""CSV tables as people and spreadsheets save them: records whose errors name line and column.

Cells are separated by commas, semicolons or tabs, or as a first line ``sep=;`` says. Spaces around names and cells do
not count, and neither do columns without a name and lines in which every cell is empty.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sparsejax.config import ConfigError
from sparsejax.files.json_records import MAX_BYTES
from sparsejax.files.text import decode_text, one_line

_SEPARATORS = ",;\t"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d+([,.' ]\d+)+([eE][+-]?\d+)?", re.ASCII)
_ABOVE_0 = "must be above 0"


@dataclasses.dataclass(frozen=True)
class Record:
    """One line of a table.

    Attributes:
      place: file and line, for errors.
      cells: text by column.
    """

    place: str
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """A cell; raises ``ConfigError`` if it is empty."""
        if not self.cells[column]:
            raise self.error(column, "is empty")
        return self.cells[column]

    def optional(self, column: str, default: str = "") -> str:
        """A cell, or ``default`` where the table has no such column."""
        return self.cells[column] if column in self.cells else default

    def number(self, column: str) -> float:
        """A finite number; raises ``ConfigError`` for anything else."""
        text = self.text(column)
        if not _NUMBER.fullmatch(text):
            shown = one_line(repr(text), 60)
            if _GROUPED.fullmatch(text):
                raise self.error(column, f"{shown} has a decimal comma or groups of digits; write 1234.5")
            raise self.error(column, f"{shown} is not a finite number")
        value = float(text)
        if not math.isfinite(value):
            raise self.error(column, f"{text} is too large for a number")
        return value

    def count(self, column: str) -> float:
        """A number above 0."""
        value = self.number(column)
        if not value > 0:
            raise self.error(column, f"{value:g} {_ABOVE_0}")
        return value

    def density(self, column: str) -> float:
        """A number in (0, 1]."""
        value = self.number(column)
        if not 0 < value <= 1:
            raise self.error(column, f"{value:g} must be in (0, 1]")
        return value

    def error(self, column: str, problem: str) -> ConfigError:
        """The one line that says where a cell is wrong."""
        return ConfigError(f"{self.place}, column {column}: {one_line(problem, 300)}")


@dataclasses.dataclass(frozen=True)
class CsvTable:
    """A table: the names of its columns, and its lines."""

    columns: tuple[str, ...]
    records: tuple[Record, ...]


def read_csv(path: Path) -> CsvTable:
    """Read a CSV file.

    Raises:
      ConfigError: it is not UTF-8, has no header, a name twice, cells without a column, too few cells, or a quote that
        does not end.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"--rows={one_line(path)}: is larger than {MAX_BYTES:,} bytes, which no table of runs is")
    text = decode_text(path.read_bytes(), f"--rows={path}")
    lines = _lines(text, f"--rows={one_line(path)}")
    header = next(lines, None)
    if header is None:
        raise ConfigError(f"--rows={one_line(path)}: is empty; the first line must name the columns")
    place, names = header
    while names and not names[-1]:
        names.pop()
    for name in names:
        if name and names.count(name) > 1:
            raise ConfigError(f"{place}: two columns are called {one_line(repr(name))}; name each once")
    return CsvTable(
        columns=tuple(name for name in names if name),
        records=tuple(_record(place, names, cells) for place, cells in lines),
    )


def _record(place: str, names: list[str], cells: list[str]) -> Record:
    for number, cell in enumerate(cells):
        if cell and (number >= len(names) or not names[number]):
            raise ConfigError(f"{place}, column {number + 1}: {one_line(repr(cell), 60)} stands under no column name")
    if len(cells) < len(names):
        raise ConfigError(
            f"{place}: has {len(cells)} cells, but there are {len(names)} columns; the cell of column "
            f"{one_line(names[len(cells)])} is missing"
        )
    return Record(place, {name: cell for name, cell in zip(names, cells, strict=False) if name})


def _lines(text: str, name: str) -> Iterator[tuple[str, list[str]]]:
    """Place and cells of every line that is not empty, the header first."""
    told = re.match(r'"?sep=(.)"?\r?\n', text)
    if told:
        text = "\n" + text[told.end() :]
    separator = told[1] if told else _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    before = 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                yield f"{name}: line {before}", cells
            before = reader.line_num + 1
    except csv.Error as error:
        raise ConfigError(f"{name}: line {before}: is not CSV ({error})") from None


def _separator(text: str) -> str:
    """The separator that cuts the header into most cells."""

    def cells(separator: str) -> int:
        try:
            lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
            return len(next((line for line in lines if any(line)), []))
        except csv.Error:
            return 0

    return max(_SEPARATORS, key=cells)
