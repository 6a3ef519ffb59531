"""Rows from files: ``result.json`` of runs, CSV in this project's own columns, and tables that others published.

A public table is recognised by its header. Each ``Source`` below says, for one header, what its columns mean.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sparsejax.config import ConfigError
from sparsejax.scaling.result_table import FIELDS, result_of, table_text
from sparsejax.scaling.rows import CONVENTIONS, ScalingRow
from sparsejax.scaling.runs import RunResult, read

Record = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Source:
    """A table with a known header.

    Attributes:
      name: for messages.
      header: columns that only this table has together.
      row: one record as a row; raises ``ValueError`` on a cell that is no number.
      keep: whether a record is fitted by default.
      left_out: what ``keep`` leaves out, in words.
    """

    name: str
    header: frozenset[str]
    row: Callable[[Record], ScalingRow]
    keep: Callable[[Record], bool]
    left_out: str


def read_rows(path: Path, convention: str = "active", everything: bool = False) -> list[ScalingRow]:
    """Rows of a result, of every ``result.json`` below a directory, or of a CSV table.

    Args:
      path: file or directory; a CSV file of ``result_table`` is as good as the directory it was made from.
      convention: which of the counts of a ``result.json`` becomes N; other tables state their own.
      everything: also rows that the published fit of a known table leaves out.

    Raises:
      ConfigError: nothing there, an unknown header, or a cell that is no number.
    """
    if path.is_dir() or path.suffix == ".json":
        return [row_of_result(result, convention) for result in read_results(path)]
    if not path.is_file():
        raise ConfigError(f"--rows={path}: no such file or directory")
    return _read_csv(path, convention, everything)


def read_results(path: Path) -> list[RunResult]:
    """Finished runs of a ``result.json``, or of all below a directory, whose names then say where they were found.

    Raises:
      ConfigError: there is none, or one that cannot be read.
    """
    if not path.is_dir():
        return [_read_result(path)]
    found = sorted(path.rglob("result.json"))
    if not found:
        raise ConfigError(f"--rows={path}: no result.json below it; give a CSV file, or the directory of finished runs")
    results = [_read_result(file) for file in found]
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
    counts = {
        "total": result.total_parameters,
        "active": result.active_parameters,
        "active_non_embedding": result.non_embedding_parameters,
        "total_times_density": result.total_parameters * result.density,
        "mean_active": result.mean_active_parameters,
    }
    if convention not in counts:
        raise ConfigError(f"--parameters={convention}: a result states {', '.join(counts)}")
    setting = [result.size, result.total_parameters, result.active_parameters, result.method, result.block]
    setting += [result.unique_tokens, result.total_tokens, result.peak_lr, result.schedule, result.batch_size]
    setting += [result.started_from]
    return ScalingRow(
        name=result.name,
        parameters=counts[convention],
        convention=convention,
        tokens=result.total_tokens,
        unique_tokens=min(result.unique_tokens, result.total_tokens),
        density=result.density,
        loss=result.validation_loss,
        schedule=result.schedule,
        decay_finished=result.decay_finished,
        group=repr(setting),
        dense_start=bool(result.started_from),
        others={"N_bar": result.mean_active_parameters},
    )


def _read_result(path: Path) -> RunResult:
    try:
        return read(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _read_csv(path: Path, convention: str, everything: bool) -> list[ScalingRow]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        header = frozenset(reader.fieldnames or ())
        if header == frozenset(FIELDS):
            return [row_of_result(result, convention) for result in _results(path, reader)]
        source = next((one for one in SOURCES if one.header <= header), None)
        if source is None:
            raise ConfigError(
                f"--rows={path}: its header is not known; this project's own is {','.join(sorted(OWN.header))}"
                " (optional: schedule,decay_finished,group, and columns that laws read, such as X)"
            )
        rows = []
        for line, record in enumerate(reader, start=2):
            if None in record or None in record.values():
                raise ConfigError(f"--rows={path}: line {line} has not as many cells as the header")
            if everything or source.keep(record):
                try:
                    rows.append(source.row(record))
                except ValueError as error:
                    raise ConfigError(f"--rows={path}: line {line}: {error}") from None
    return rows


def _results(path: Path, reader: csv.DictReader[str]) -> list[RunResult]:
    results = []
    for line, record in enumerate(reader, start=2):
        try:
            if None in record or None in record.values():
                raise ValueError("has not as many cells as the header")
            results.append(result_of(record))
        except ValueError as error:
            raise ConfigError(f"--rows={path}: line {line}: {error}") from None
    return results


def _own(r: Record) -> ScalingRow:
    known = OWN.header | {"schedule", "decay_finished", "group"}
    if r["convention"] not in CONVENTIONS:
        raise ValueError(f"convention={r['convention']}: use one of {', '.join(CONVENTIONS)}")
    decayed = r.get("decay_finished", "1").lower()
    if decayed not in ("0", "1", "true", "false"):
        raise ValueError(f"decay_finished={decayed}: must be 0 or 1")
    return ScalingRow(
        name=r["name"],
        parameters=float(r["parameters"]),
        convention=r["convention"],
        tokens=float(r["tokens"]),
        unique_tokens=float(r["unique_tokens"]),
        density=float(r["density"]),
        loss=float(r["loss"]),
        schedule=r.get("schedule", ""),
        decay_finished=decayed in ("1", "true"),
        group=r.get("group", ""),
        others={key: float(value) for key, value in r.items() if key not in known},
    )


def _sweep(r: Record) -> ScalingRow:
    D = float(r["total_tokens"])
    return ScalingRow(
        name=f"{r['point']} seed {r['seed']}",
        parameters=float(r["active_parameters"]),
        convention="active",
        tokens=D,
        unique_tokens=min(float(r["unique_tokens"]), D),
        density=float(r["density"]),
        loss=float(r["validation_loss"]),
        group=r["point"],
        # Older tables are of runs that all began with a draw.
        dense_start=bool(r.get("started_from", "")),
    )


def _dense(r: Record, name: str, N: float, D: float, U: float, loss: float, group: str = "") -> ScalingRow:
    return ScalingRow(name, N, "total", D, U, 1.0, loss, group=group)


def _chinchilla(r: Record) -> ScalingRow:
    D = float(r["tokens"])
    return _dense(r, f"{float(r['params']):.3g}x{D:.3g}", float(r["params"]), D, D, float(r["loss"]))


def _repeated(r: Record) -> ScalingRow:
    N, D, U = float(r["params"]), float(r["tokens"]), float(r["unique_tokens"])
    return _dense(r, r["name"], N, D, U, float(r["loss"]), f"{N} {D} {U} {r['deduplicated_data']}")


def _t5(r: Record) -> ScalingRow:
    steps = float(r["steps"])
    name = f"{r['params_dense']}@{r['sparsity']}"
    return ScalingRow(
        name, float(r["params_nonzero"]), "nonzero", steps, steps, 1 - float(r["sparsity"]), float(r["loss"])
    )


def _openlm(r: Record) -> ScalingRow:
    D = float(r["tokens"])
    return _dense(r, r["name"], float(r["params"]), D, D, float(r["loss_c4_val"]))


def _routed(r: Record) -> ScalingRow:
    N, steps = float(r["dense_parameter_count"]), float(r["step"])
    name = f"{r['router_type']} {r['model_size_label']} x {r['num_experts']}"
    # Their loss_validation is in nats/token of the training distribution.
    others = {"X": float(r["num_experts"])}
    return ScalingRow(name, N, "total", steps, steps, 1.0, float(r["loss_validation"]), others=others)


def _synthetic(r: Record) -> ScalingRow:
    D, U = float(r["tokens"]), float(r["unique_tokens"])
    N, S = float(r["params_active"]), float(r["density"])
    return ScalingRow(r["group"], N, "total_times_density", D, U, S, float(r["loss_noisy"]))


def _always(r: Record) -> bool:
    return True


def _published(r: Record) -> bool:
    return r["published_fit"] == "1"


OWN = Source(
    "sparsejax",
    frozenset({"name", "parameters", "convention", "tokens", "unique_tokens", "density", "loss"}),
    _own,
    _always,
    "",
)
SOURCES: tuple[Source, ...] = (
    OWN,
    Source(
        "runs.csv of a sweep, N the active parameters",
        frozenset({"point", "seed", "status", "active_parameters", "unique_tokens", "total_tokens", "validation_loss"}),
        _sweep,
        lambda r: r["status"] == "finished",
        "runs that are not finished",
    ),
    Source(
        "arXiv 2404.10102, points of figure 4 of arXiv 2203.15556",
        frozenset({"params", "flops", "tokens", "loss", "published_fit"}),
        _chinchilla,
        _published,
        "the five highest losses",
    ),
    Source(
        "arXiv 2305.16264, runs on C4",
        frozenset({"params", "tokens", "unique_tokens", "loss", "seed_label", "deduplicated_data", "published_fit"}),
        _repeated,
        _published,
        "repeats of seeds, deduplicated data, and runs that overfit",
    ),
    Source(
        "arXiv 2309.08520, T5 on C4 (tokens are steps)",
        frozenset({"sparsity", "scale", "params_dense", "params_nonzero", "steps", "loss"}),
        _t5,
        _always,
        "",
    ),
    Source(
        "arXiv 2403.08540, OpenLM, loss on C4, trained on RedPajama",
        frozenset({"train_set", "params", "tokens", "token_multiplier", "loss_c4_val"}),
        _openlm,
        lambda r: r["train_set"] == "rpj",
        "other training sets",
    ),
    Source(
        "arXiv 2202.01169, S-Base and dense (tokens are steps)",
        frozenset({"router_type", "num_experts", "dense_parameter_count", "loss_validation"}),
        _routed,
        lambda r: (
            r["router_type"] in ("Dense", "S-Base")
            and (r["routing_frequency"], r["k"], r["seed"]) == ("0.5", "1", "42")
        ),
        "other routers, frequencies and seeds",
    ),
    Source(
        "runs drawn from the law of arXiv 2606.01155",
        frozenset({"group", "params_total", "params_active", "unique_tokens", "tokens", "density", "loss_noisy"}),
        _synthetic,
        _always,
        "",
    ),
)
