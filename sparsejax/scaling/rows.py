"""Runs as laws read them: typed rows, and the table of columns that a fit takes.

Every row says what its parameter count counts. A table has one such convention: the gap between counts with and without
embedding is larger than most effects that a law is fitted to find.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from sparsejax.config import ConfigError
from sparsejax.files.text import one_line
from sparsejax.scaling.row_checks import check_different, check_measured_alike, check_row, one_value, unknown_measures

# total: of the dense twin. active: weights that exist, dense parts included. active_non_embedding: the same without
# embedding and head. total_times_density: as arXiv 2606.01155 counts, the dense embedding thinned too.
# mean_active: active, averaged over training. nonzero: weights of a pruned model that are not 0, without embedding.
Convention = Literal["total", "active", "active_non_embedding", "total_times_density", "mean_active", "nonzero"]
CONVENTIONS: tuple[str, ...] = get_args(Convention)


@dataclasses.dataclass(frozen=True)
class ScalingRow:
    """One run, or one point of a curve.

    Attributes:
      name: of the run.
      parameters: as ``convention`` counts them.
      convention: what ``parameters`` counts.
      tokens: training tokens, repetitions counted (or steps, where a source has only those).
      unique_tokens: distinct training tokens.
      density: in (0, 1].
      loss: validation loss, in nats/token.
      schedule: shape of the learning rate; empty where the source does not say.
      decay_finished: whether the learning rate had reached its end when the loss was taken.
      group: runs that differ in nothing but their seed share a group; empty for a group of its own.
      dense_start: whether it began with the weights of a dense model, whose training no column counts.
      tokenizer: name or digest of the tokenizer that the loss is of; empty where the source does not say.
      text: name or digest of the data that the loss is of; empty where the source does not say.
      unit: of the loss.
      tokens_in: what ``tokens`` counts, ``"tokens"`` or ``"steps"``.
      bytes_per_token: of the text that the loss is of, in its tokenizer; 0 where the source does not say.
      place: file and line, for errors; empty for a row made in Python.
      others: further columns by the names that laws use, such as ``X`` or ``NV``.
    """

    name: str
    parameters: float
    convention: str
    tokens: float
    unique_tokens: float
    density: float
    loss: float
    schedule: str = ""
    decay_finished: bool = True
    group: str = ""
    dense_start: bool = False
    tokenizer: str = ""
    text: str = ""
    unit: str = "nats/token"
    tokens_in: str = "tokens"
    bytes_per_token: float = 0.0
    place: str = dataclasses.field(default="", compare=False)
    others: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def where(self) -> str:
        """The run and its place, for errors."""
        name = f"run {one_line(self.name, 80)}"
        return f"{self.place} ({name})" if self.place else name


# Compared by what it is, not by its arrays.
@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Columns of R runs.

    Attributes:
      columns: ``[R]`` arrays by the names of ``laws.law``: N, D, U, S and what ``others`` of the rows add.
      loss: ``[R]``, in nats/token.
      groups: ``[R]`` int, equal for runs that differ in nothing but their seed.
      names: of the runs.
      convention: what N counts.
      source: where the rows came from, for reports.
      tokenizer: that of the runs, as their rows have it; empty where it is not known.
      text: the data their losses are of; empty where it is not known.
      tokens_in: what D counts, ``"tokens"`` or ``"steps"``.
      notes: what was left out or is not known, a line each.
    """

    columns: Mapping[str, np.ndarray]
    loss: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]
    convention: str
    source: str
    tokenizer: str = ""
    text: str = ""
    tokens_in: str = "tokens"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def digest(self) -> str:
        """sha256 of the numbers, in their order: equal for equal data, wherever it came from."""
        content = [self.convention, self.loss.tolist(), self.groups.tolist()]
        content += [[name, self.columns[name].tolist()] for name in sorted(self.columns)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def where(self, keep: np.ndarray) -> Table:
        """The runs where ``keep [R]`` is true."""
        return dataclasses.replace(
            self,
            columns={name: column[keep] for name, column in self.columns.items()},
            loss=self.loss[keep],
            groups=self.groups[keep],
            names=tuple(name for name, kept in zip(self.names, keep, strict=True) if kept),
        )


def table_of(
    rows: Sequence[ScalingRow],
    source: str,
    allow_undecayed: bool = False,
    allow_dense_starts: bool = False,
    notes: Sequence[str] = (),
) -> Table:
    """The table of some rows.

    Args:
      rows: at least one.
      source: for reports and messages.
      allow_undecayed: take rows whose learning rate had not reached its end: their loss is higher than that of a
        finished run with as many tokens, and a law of finished runs does not describe them.
      allow_dense_starts: take rows that began with the weights of a dense model: their loss is lower than that of a
        run that saw their tokens alone.
      notes: what reading the rows left out, for the report.

    Raises:
      ConfigError: no rows, two conventions, two tokenizers or texts, an undecayed row, one with a dense start, a row
        that cannot be, the same run twice, or columns that some rows lack.
    """
    if not rows:
        raise ConfigError(f"{source}: no runs in it" + "".join(f"; {note}" for note in notes))
    convention = one_value(source, rows, "convention", "parameters are counted as", "fit one count at a time")
    tokenizer, text, tokens_in = check_measured_alike(source, rows)
    unlike = _unlike(source, rows, allow_undecayed, allow_dense_starts)
    if unlike:
        raise ConfigError(unlike)
    for row in rows:
        check_row(row, source, CONVENTIONS)
    doubts = [*notes, *unknown_measures(rows), *check_different(source, rows)]
    columns = {
        "N": [row.parameters for row in rows],
        "D": [row.tokens for row in rows],
        "U": [row.unique_tokens for row in rows],
        "S": [row.density for row in rows],
    }
    # Runs of this project state one column more than tables do.
    shared = set.intersection(*(set(row.others) for row in rows))
    for name in dict.fromkeys(name for row in rows for name in row.others):
        if name in shared:
            columns[name] = [row.others[name] for row in rows]
        elif name != "N_bar":
            raise ConfigError(f"{source}: column {name} is not in every row")
    labels = [row.group or f"run {i}" for i, row in enumerate(rows)]
    order = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    return Table(
        columns={name: np.array(column, dtype=np.float64) for name, column in columns.items()},
        loss=np.array([row.loss for row in rows], dtype=np.float64),
        groups=np.array([order[label] for label in labels]),
        names=tuple(row.name for row in rows),
        convention=convention,
        source=source,
        tokenizer=tokenizer,
        text=text,
        tokens_in=tokens_in,
        notes=tuple(doubts),
    )


def _unlike(source: str, rows: Sequence[ScalingRow], allow_undecayed: bool, allow_dense_starts: bool) -> str:
    """The reason why some rows are no whole runs from a draw; empty where all are, or where they are allowed."""
    undecayed = [row.where for row in rows if not row.decay_finished]
    if undecayed and not allow_undecayed:
        return (
            f"{source}: {len(undecayed)} of {len(rows)} runs stopped before their learning rate had decayed "
            f"({undecayed[0]}, ...); leave them out, or take them with --allow-undecayed"
        )
    begun = [row.where for row in rows if row.dense_start]
    if begun and not allow_dense_starts:
        return (
            f"{source}: {len(begun)} of {len(rows)} runs began with the weights of a dense model, whose tokens are not "
            f"counted ({begun[0]}, ...); leave them out, or take them with --allow-dense-starts"
        )
    return ""
