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
    others: Mapping[str, float] = dataclasses.field(default_factory=dict)


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
    """

    columns: Mapping[str, np.ndarray]
    loss: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]
    convention: str
    source: str

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
    rows: Sequence[ScalingRow], source: str, allow_undecayed: bool = False, allow_dense_starts: bool = False
) -> Table:
    """The table of some rows.

    Args:
      rows: at least one.
      source: for reports and messages.
      allow_undecayed: take rows whose learning rate had not reached its end: their loss is higher than that of a
        finished run with as many tokens, and a law of finished runs does not describe them.
      allow_dense_starts: take rows that began with the weights of a dense model: their loss is lower than that of a
        run that saw their tokens alone.

    Raises:
      ConfigError: no rows, two conventions, an undecayed row, one with a dense start, a row that cannot be, or columns
        that some rows lack.
    """
    if not rows:
        raise ConfigError(f"{source}: no runs in it")
    conventions = sorted({row.convention for row in rows})
    if len(conventions) > 1:
        raise ConfigError(
            f"{source}: parameters are counted as {' and as '.join(conventions)}; fit one count at a time"
        )
    undecayed = [row.name for row in rows if not row.decay_finished]
    if undecayed and not allow_undecayed:
        raise ConfigError(
            f"{source}: {len(undecayed)} of {len(rows)} runs stopped before their learning rate had decayed "
            f"({undecayed[0]}, ...); leave them out, or take them with --allow-undecayed"
        )
    begun = [row.name for row in rows if row.dense_start]
    if begun and not allow_dense_starts:
        raise ConfigError(
            f"{source}: {len(begun)} of {len(rows)} runs began with the weights of a dense model, whose tokens are not "
            f"counted ({begun[0]}, ...); leave them out, or take them with --allow-dense-starts"
        )
    for row in rows:
        _check(row, source)
    columns = {
        "N": [row.parameters for row in rows],
        "D": [row.tokens for row in rows],
        "U": [row.unique_tokens for row in rows],
        "S": [row.density for row in rows],
    }
    for name in rows[0].others:
        if any(name not in row.others for row in rows):
            raise ConfigError(f"{source}: column {name} is not in every row")
        columns[name] = [row.others[name] for row in rows]
    labels = [row.group or f"run {i}" for i, row in enumerate(rows)]
    order = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    return Table(
        columns={name: np.array(column, dtype=np.float64) for name, column in columns.items()},
        loss=np.array([row.loss for row in rows], dtype=np.float64),
        groups=np.array([order[label] for label in labels]),
        names=tuple(row.name for row in rows),
        convention=conventions[0],
        source=source,
    )


def _check(row: ScalingRow, source: str) -> None:
    where = f"{source}: run {row.name}:"
    if row.convention not in CONVENTIONS:
        raise ConfigError(f"{where} convention={row.convention}: unknown; use one of {', '.join(CONVENTIONS)}")
    for name in ("parameters", "tokens", "unique_tokens"):
        if not 0 < getattr(row, name) < float("inf"):
            raise ConfigError(f"{where} {name}={getattr(row, name):g}: must be above 0 and finite")
    if not 0 < row.density <= 1:
        raise ConfigError(f"{where} density={row.density:g}: must be in (0, 1]")
    if not abs(row.loss) < float("inf"):
        raise ConfigError(f"{where} loss={row.loss}: must be finite")
    # A last epoch that is not whole may leave a rounding's worth of tokens unseen.
    if row.unique_tokens > row.tokens * (1 + 1e-6):
        raise ConfigError(
            f"{where} unique_tokens={row.unique_tokens:g} exceed tokens={row.tokens:g}: at most as many were seen"
        )
