"""What the columns of known CSV tables mean: this project's own, a sweep's, and tables that others published."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from sparsejax.scaling.csv_table import Record
from sparsejax.scaling.laws.registry import LAWS
from sparsejax.scaling.rows import CONVENTIONS, ScalingRow

# Columns of our own tables that may be left out.
OPTIONAL = ("schedule", "decay_finished", "group", "tokenizer", "text", "unit")
# Further columns, which only some laws read.
READ_BY_LAWS = tuple(sorted({name for law in LAWS.values() for name in law.columns} - set("NDUS")))


@dataclasses.dataclass(frozen=True)
class Source:
    """A table with a known header.

    Attributes:
      name: for messages; what the losses of a published table are of.
      header: columns that only this table has together.
      row: one record as a row; raises ``ConfigError`` on a cell that is not what its column holds.
      keep: whether a record is fitted by default.
      left_out: what ``keep`` leaves out, in words.
    """

    name: str
    header: frozenset[str]
    row: Callable[[Record], ScalingRow]
    keep: Callable[[Record], bool]
    left_out: str


def _own(r: Record) -> ScalingRow:
    convention = r.text("convention")
    if convention not in CONVENTIONS:
        raise r.error("convention", f"{convention} is unknown; use one of {', '.join(CONVENTIONS)}")
    decayed = r.optional("decay_finished", "1").lower()
    if decayed not in ("0", "1", "true", "false"):
        raise r.error("decay_finished", f"{decayed or 'an empty cell'} must be 0 or 1")
    unit = r.optional("unit") or "nats/token"
    if unit not in ("nats/token", "bits/byte"):
        raise r.error("unit", f"{unit} is unknown; use nats/token")
    return ScalingRow(
        name=r.text("name"),
        parameters=r.count("parameters"),
        convention=convention,
        tokens=r.count("tokens"),
        unique_tokens=r.count("unique_tokens"),
        density=r.density("density"),
        loss=r.number("loss"),
        schedule=r.optional("schedule"),
        decay_finished=decayed in ("1", "true"),
        group=r.optional("group"),
        tokenizer=r.optional("tokenizer"),
        text=r.optional("text"),
        unit=unit,
        place=r.place,
        others={name: r.count(name) for name in READ_BY_LAWS if name in r.cells},
    )


def _sweep(r: Record) -> ScalingRow:
    D = r.count("total_tokens")
    return ScalingRow(
        name=f"{r.text('point')} seed {r.text('seed')}",
        parameters=r.count("active_parameters"),
        convention="active",
        tokens=D,
        unique_tokens=min(r.count("unique_tokens"), D),
        density=r.density("density"),
        loss=r.number("validation_loss"),
        decay_finished=r.cells["status"] == "finished",
        group=r.text("point"),
        bytes_per_token=_bytes_per_token(r),
        # Older tables are of runs that all began with a draw.
        dense_start=bool(r.optional("started_from")),
        place=r.place,
    )


def _bytes_per_token(r: Record) -> float:
    if not r.optional("bits_per_byte"):
        return 0.0
    return bytes_per_token(r.number("validation_loss"), r.count("bits_per_byte"))


def bytes_per_token(nats_per_token: float, bits_per_byte: float) -> float:
    """Bytes of a token on the text that both losses are of: equal for runs of one text and one tokenizer."""
    return nats_per_token / (bits_per_byte * math.log(2)) if bits_per_byte > 0 else 0.0


def _dense(r: Record, name: str, N: float, D: float, U: float, loss: float, text: str, group: str = "") -> ScalingRow:
    return ScalingRow(name, N, "total", D, U, 1.0, loss, group=group, text=text, place=r.place)


def _chinchilla(r: Record) -> ScalingRow:
    N, D = r.count("params"), r.count("tokens")
    return _dense(r, f"{N:.3g}x{D:.3g}", N, D, D, r.number("loss"), "MassiveText, arXiv 2203.15556")


def _repeated(r: Record) -> ScalingRow:
    N, D, U = r.count("params"), r.count("tokens"), r.count("unique_tokens")
    group = f"{N} {D} {U} {r.text('deduplicated_data')}"
    return _dense(r, r.text("name"), N, D, U, r.number("loss"), "C4, arXiv 2305.16264", group)


def _t5(r: Record) -> ScalingRow:
    steps, sparsity = r.count("steps"), r.number("sparsity")
    if not 0 <= sparsity < 1:
        raise r.error("sparsity", f"{sparsity:g} must be in [0, 1)")
    return ScalingRow(
        name=f"{r.text('params_dense')}@{r.text('sparsity')}",
        parameters=r.count("params_nonzero"),
        convention="nonzero",
        tokens=steps,
        unique_tokens=steps,
        density=1 - sparsity,
        loss=r.number("loss"),
        text="C4, arXiv 2309.08520",
        tokens_in="steps",
        place=r.place,
    )


def _openlm(r: Record) -> ScalingRow:
    D = r.count("tokens")
    return _dense(r, r.text("name"), r.count("params"), D, D, r.number("loss_c4_val"), "C4, arXiv 2403.08540")


def _routed(r: Record) -> ScalingRow:
    steps = r.count("step")
    return ScalingRow(
        name=f"{r.text('router_type')} {r.text('model_size_label')} x {r.text('num_experts')}",
        parameters=r.count("dense_parameter_count"),
        convention="total",
        tokens=steps,
        unique_tokens=steps,
        density=1.0,
        # Their loss_validation is in nats/token of the training distribution.
        loss=r.number("loss_validation"),
        text="MassiveText, arXiv 2202.01169",
        tokens_in="steps",
        place=r.place,
        others={"X": r.count("num_experts")},
    )


def _synthetic(r: Record) -> ScalingRow:
    return ScalingRow(
        name=r.text("group"),
        parameters=r.count("params_active"),
        convention="total_times_density",
        tokens=r.count("tokens"),
        unique_tokens=r.count("unique_tokens"),
        density=r.density("density"),
        loss=r.number("loss_noisy"),
        text="drawn from the law of arXiv 2606.01155",
        place=r.place,
    )


def _always(r: Record) -> bool:
    return True


def _published(r: Record) -> bool:
    return r.text("published_fit") == "1"


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
        frozenset(
            {"point", "seed", "status", "active_parameters", "density"}
            | {"unique_tokens", "total_tokens", "validation_loss"}
        ),
        _sweep,
        lambda r: r.text("status") == "finished",
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
        frozenset(
            {"name", "params", "tokens", "unique_tokens", "loss", "seed_label", "deduplicated_data", "published_fit"}
        ),
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
        frozenset({"name", "train_set", "params", "tokens", "token_multiplier", "loss_c4_val"}),
        _openlm,
        lambda r: r.text("train_set") == "rpj",
        "other training sets",
    ),
    Source(
        "arXiv 2202.01169, S-Base and dense (tokens are steps)",
        frozenset(
            {"router_type", "num_experts", "k", "routing_frequency", "seed", "model_size_label"}
            | {"dense_parameter_count", "step", "loss_validation"}
        ),
        _routed,
        lambda r: (
            r.text("router_type") in ("Dense", "S-Base")
            and (r.text("routing_frequency"), r.text("k"), r.text("seed")) == ("0.5", "1", "42")
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
