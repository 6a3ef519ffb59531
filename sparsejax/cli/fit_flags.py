"""The flags of ``sparsejax fit``, and what their texts mean."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparsejax.cli.flags import FlagParser
from sparsejax.config import ConfigError

if TYPE_CHECKING:
    from sparsejax.scaling.laws.law import Law


_MOST = 1_000_000


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags; raises ``ConfigError`` for one that cannot be."""
    parser = _parser()
    flags = parser.parse_args(argv)
    if not 0.5 <= flags.level < 1:
        parser.error(f"--level={flags.level:g}: must be in [0.5, 1)")
    # Fewer refits have no tails; more of either than this takes days.
    for name, value, least in (("bootstrap", flags.bootstrap, 100), ("starts", flags.starts, 1)):
        if value is not None and not least <= value <= _MOST:
            parser.error(f"--{name}={value}: must be from {least} to {_MOST:,}")
    if not 0 <= flags.seed < 2**63:
        parser.error(f"--seed={flags.seed}: must be at least 0 and below 2^63")
    return flags


def _parser() -> FlagParser:
    parser = FlagParser(
        "fit",
        "A scaling law from finished runs: estimates with intervals, held-out errors, what the data do not identify.",
        "Rows are directories of finished runs, result.json files, or CSV tables, comma-separated.",
    )
    parser.add_argument("--rows", required=True, help="directories or files, comma-separated")
    parser.add_argument("--out", required=True, help="directory for fit.json, report.md and residuals.png")
    parser.add_argument("--save-rows", metavar="CSV", help="write all fields of the runs to one file, to keep")
    parser.add_overwrite()
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


def values(text: str, flag: str, names: tuple[str, ...]) -> dict[str, float]:
    """``alpha=0.33,E=1.7`` as numbers by parameter; raises ``ConfigError`` for others than ``names``."""
    found = {}
    for part in filter(None, text.split(",")):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in names:
            raise ConfigError(f"--{flag}={part}: no such parameter; there are {', '.join(names)}")
        if name in found:
            raise ConfigError(f"--{flag}={text}: {name} is given twice")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"--{flag}={part}: must be <parameter>=<number>") from None
    return found


def held(text: str, law: Law, fixed: Mapping[str, float]) -> tuple[str, ...]:
    """Names of parameters that the law holds; raises ``ConfigError`` for any other, and for one that is fixed too."""
    names = tuple(filter(None, text.split(",")))
    for name in names:
        if name in fixed:
            raise ConfigError(f"--free={name}: --fix gives it a value; leave one of them out")
        if name not in law.held:
            raise ConfigError(f"--free={name}: law {law.name} holds {', '.join(law.held) or 'nothing'}")
    return names


def delta(text: str) -> float | None:
    """The delta of the Huber loss, None for the automatic one; raises ``ConfigError`` for what is no delta."""
    named: dict[str, float | None] = {"auto": None, "papers": 1e-3}
    if text in named:
        return named[text]
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ConfigError(f"--delta={text}: must be auto, papers or a number above 0")
    return found
