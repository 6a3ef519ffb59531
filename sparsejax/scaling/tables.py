"""Rows from files: ``result.json`` of runs, CSV in this project's own columns, and tables that others published.

A public table is recognised by its header. Each ``Source`` below says, for one header, what its columns mean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from sparsejax.config import ConfigError
from sparsejax.files.text import one_line
from sparsejax.scaling.csv_table import CsvTable, read_csv
from sparsejax.scaling.result_table import FIELDS, result_of, table_text
from sparsejax.scaling.row_checks import left_out, other_units
from sparsejax.scaling.rows import ScalingRow
from sparsejax.scaling.runs import RunResult, read
from sparsejax.scaling.sources import OPTIONAL, OWN, READ_BY_LAWS, SOURCES, bytes_per_token

# What N may count where rows come from ``result.json``.
COUNTS: dict[str, Callable[[RunResult], float]] = {
    "total": lambda result: result.total_parameters,
    "active": lambda result: result.active_parameters,
    "active_non_embedding": lambda result: result.non_embedding_parameters,
    "total_times_density": lambda result: result.total_parameters * result.density,
    "mean_active": lambda result: result.mean_active_parameters,
}


# The loss of a uniform draw from a vocabulary of nine million.
_PERPLEXITY = 16.0


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a file or a folder holds.

    Attributes:
      rows: the runs.
      notes: what was left out, a line each.
    """

    rows: tuple[ScalingRow, ...]
    notes: tuple[str, ...]


def read_rows(path: Path, convention: str = "active", everything: bool = False) -> list[ScalingRow]:
    """The rows of ``read_file`` without its notes."""
    return list(read_file(path, convention, everything).rows)


def read_file(path: Path, convention: str = "active", everything: bool = False) -> Reading:
    """Rows of a result, of every ``result.json`` below a directory, or of a CSV table.

    Args:
      path: file or directory; a CSV file of ``result_table`` is as good as the directory it was made from.
      convention: which of the counts of a ``result.json`` becomes N; other tables state their own.
      everything: also rows that the published fit of a known table leaves out.

    Raises:
      ConfigError: nothing there, an unknown header, or a cell that is no number.
    """
    if path.is_dir() or path.suffix == ".json":
        return _finite(path, [row_of_result(result, convention) for result in read_results(path)])
    if not path.is_file():
        raise ConfigError(f"--rows={one_line(path)}: no such file or directory")
    table = read_csv(path)
    if frozenset(table.columns) == frozenset(FIELDS):
        results = [(record.place, result_of(record.cells, record.place)) for record in table.records]
        rows = [dataclasses.replace(row_of_result(result, convention), place=place) for place, result in results]
        return _finite(path, rows)
    return _table(path, table, everything)


def _finite(path: Path, rows: list[ScalingRow]) -> Reading:
    """The rows of finished runs without those whose loss is not a number."""
    broken = [row for row in rows if not math.isfinite(row.loss)]
    notes = []
    if broken:
        reason = f"their loss is not a number ({broken[0].where}, ...)"
        notes.append(left_out(len(rows), len(broken), one_line(path), reason, ""))
    return Reading(tuple(row for row in rows if math.isfinite(row.loss)), tuple(notes))


def _table(path: Path, table: CsvTable, everything: bool) -> Reading:
    source = next((one for one in SOURCES if one.header <= frozenset(table.columns)), None)
    if source is None:
        missing = [name for name in OWN.header if name not in table.columns]
        raise ConfigError(
            f"--rows={one_line(path)}: its header is not known; this project's own is {','.join(sorted(OWN.header))} "
            f"(optional: {','.join(OPTIONAL)}, and {','.join(READ_BY_LAWS)} for laws that read them); "
            f"{','.join(sorted(missing))} is missing"
        )
    taken = [record for record in table.records if everything or source.keep(record)]
    rows = []
    for record in taken:
        row = source.row(record)
        problem = other_units(row.parameters, row.tokens, row.unique_tokens, row.tokens_in)
        if row.loss > _PERPLEXITY:
            problem = f"loss={row.loss:g} is above that of any vocabulary: is it a perplexity? write nats/token"
        if problem:
            raise ConfigError(f"{record.place}: {problem}")
        rows.append(row)
    notes, out = [], len(table.records) - len(taken)
    if out:
        notes.append(left_out(len(table.records), out, one_line(path.name), source.left_out, "--all-rows"))
    unread = [name for name in table.columns if name not in (*OWN.header, *OPTIONAL, *READ_BY_LAWS)]
    if source is OWN and unread:
        notes.append(f"{one_line(path.name)}: columns that nothing reads: {one_line(', '.join(unread))}")
    return Reading(tuple(rows), tuple(notes))


def read_results(path: Path) -> list[RunResult]:
    """Finished runs of a ``result.json``, or of all below a directory, whose names then say where they were found.

    Raises:
      ConfigError: there is none, or one that cannot be read.
    """
    if not path.is_dir():
        return [read(path)]
    found = sorted(path.rglob("result.json"))
    if not found:
        raise ConfigError(f"--rows={path}: no result.json below it; give a CSV file, or the directory of finished runs")
    results = [read(file) for file in found]
    if len(results) == 1:
        return results
    names = [file.parent.relative_to(path).as_posix() for file in found]
    return [dataclasses.replace(result, name=name) for result, name in zip(results, names, strict=True)]


def saved_rows(paths: Sequence[Path], target: object) -> str:
    """Every field of the finished runs of some directories as one CSV table, which ``read_rows`` reads back.

    Args:
      paths: the directories.
      target: where the table will be, for the error.

    Raises:
      ConfigError: one of them is no directory of finished runs.
    """
    for path in paths:
        if not path.is_dir():
            raise ConfigError(f"--save-rows={target}: takes directories of finished runs, --rows={path} is none")
    return table_text([result for path in paths for result in read_results(path)])


def row_of_result(result: RunResult, convention: str) -> ScalingRow:
    """A finished run as a row; runs that differ only in their three seeds share a group.

    Raises:
      ConfigError: the convention is not one that a result states.
    """
    if convention not in COUNTS:
        raise ConfigError(f"--parameters={one_line(convention)}: a result states {', '.join(COUNTS)}")
    setting = [result.size, result.total_parameters, result.active_parameters, result.method, result.block]
    setting += [result.unique_tokens, result.total_tokens, result.peak_lr, result.schedule, result.batch_size]
    setting += [result.started_from]
    return ScalingRow(
        name=result.name,
        parameters=COUNTS[convention](result),
        convention=convention,
        tokens=result.total_tokens,
        unique_tokens=min(result.unique_tokens, result.total_tokens),
        density=result.density,
        loss=result.validation_loss,
        schedule=result.schedule,
        decay_finished=result.decay_finished,
        group=repr(setting),
        dense_start=bool(result.started_from),
        tokenizer=result.tokenizer_digest,
        text=result.data_digest,
        bytes_per_token=bytes_per_token(result.validation_loss, result.bits_per_byte),
        others={"N_bar": result.mean_active_parameters},
    )
