"""``sparsejax fit``: a scaling law from finished runs, with intervals, held-out errors and diagnostics."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sparsejax.cli.flags import FlagParser
from sparsejax.config import ConfigError

if TYPE_CHECKING:
    from sparsejax.scaling.laws.law import Law

# Fits are float64 on the host: no accelerator is looked for, which would take longer than the fit.
_PLATFORM = "JAX_PLATFORMS"


def main(argv: list[str]) -> int:
    """Fit, write fit.json, report.md and residuals.png, print the report; returns 0."""
    parser = _parser()
    flags = parser.parse_args(argv)
    if not 0.5 <= flags.level < 1:
        parser.error(f"--level={flags.level:g}: must be in [0.5, 1)")
    if flags.bootstrap < 100:
        parser.error(f"--bootstrap={flags.bootstrap}: must be at least 100; fewer refits have no tails")
    os.environ.setdefault(_PLATFORM, "cpu")

    from sparsejax.scaling.fit_report import write_report
    from sparsejax.scaling.laws.registry import law_named
    from sparsejax.scaling.rows import table_of
    from sparsejax.scaling.studies import study
    from sparsejax.scaling.tables import read_rows, save_rows

    try:
        laws = [law_named(name) for name in (flags.law, *filter(None, flags.against.split(",")))]
    except ValueError as error:
        raise ConfigError(f"--{error}") from None
    if flags.save_rows is not None:
        save_rows([Path(path) for path in flags.rows.split(",")], flags.save_rows)
    rows = [row for path in flags.rows.split(",") for row in read_rows(Path(path), flags.parameters, flags.all_rows)]
    source = ", ".join(Path(path).name for path in flags.rows.split(","))
    table = table_of(rows, source, flags.allow_undecayed, flags.allow_dense_starts)
    found = study(
        laws,
        table,
        fixed=_values(flags.fix, "fix", laws[0].names),
        free_held=_held(flags.free, laws[0]),
        delta=_delta(flags.delta),
        staged=flags.stages,
        starts=flags.starts,
        samples=flags.bootstrap,
        level=flags.level,
        seed=flags.seed,
        command=shlex.join(["sparsejax", "fit", *argv]),
    )
    print("\n".join(write_report(found, flags.out)))
    print(
        f"\nwrote {flags.out}/fit.json, report.md, residuals.png; next: sparsejax advise --fit={flags.out}/fit.json ..."
    )
    return 0


def _parser() -> FlagParser:
    parser = FlagParser(
        "fit",
        "A scaling law from finished runs: estimates with intervals, held-out errors, what the data do not identify.",
        "Rows are directories of finished runs, result.json files, or CSV tables, comma-separated.",
    )
    parser.add_argument("--rows", required=True, help="directories or files, comma-separated")
    parser.add_argument("--out", required=True, type=Path, help="directory for fit.json, report.md and residuals.png")
    parser.add_argument(
        "--save-rows", type=Path, metavar="CSV", help="write all fields of the runs to one file, to keep"
    )
    parser.add_argument("--law", default="sparse_repeated", help="which law; see sparsejax/scaling/laws")
    parser.add_argument("--against", default="", help="further laws to compare by held-out errors, comma-separated")
    parser.add_argument("--parameters", default="active", help="what N counts, for rows from result.json")
    parser.add_argument("--fix", default="", help="parameters that keep a value: alpha=0.33,E=1.7")
    parser.add_argument(
        "--delta", default="auto", help="of the Huber loss: auto (from the residuals), papers (1e-3), a number"
    )
    parser.add_argument(
        "--stages", action="store_true", help="sparse_repeated: the four stages of its paper, then all at once"
    )
    parser.add_argument("--free", default="", help="parameters that the law holds and that are to be fitted: lam,L0")
    parser.add_argument("--starts", type=int, help="number of starts; by default enough for the number of parameters")
    parser.add_argument("--bootstrap", type=int, default=1000, help="refits for intervals; at least 100")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals")
    parser.add_argument("--seed", type=int, default=0, help="of starts, refits and folds")
    parser.add_argument(
        "--all-rows", action="store_true", help="also rows that a known table's published fit leaves out"
    )
    parser.add_argument("--allow-undecayed", action="store_true", help="also runs whose learning rate had not decayed")
    parser.add_argument("--allow-dense-starts", action="store_true", help="also runs that began with dense weights")
    return parser


def _values(text: str, flag: str, names: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"--{flag}={part}: must be <parameter>=<number>") from None
        if name not in names:
            raise ConfigError(f"--{flag}={part}: no such parameter; there are {', '.join(names)}")
    return found


def _held(text: str, law: Law) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    for name in names:
        if name not in law.held:
            raise ConfigError(f"--free={name}: law {law.name} holds {', '.join(law.held) or 'nothing'}")
    return names


def _delta(text: str) -> float | None:
    named: dict[str, float | None] = {"auto": None, "papers": 1e-3}
    if text in named:
        return named[text]
    try:
        delta = float(text)
    except ValueError:
        delta = 0.0
    if not 0 < delta < float("inf"):
        raise ConfigError(f"--delta={text}: must be auto, papers or a number above 0")
    return delta
