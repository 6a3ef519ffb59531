"""``sparsejax average``: the mean of runs that share a topology (sparse model soups)."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from sparsejax.cli.flags import FlagParser


def main(argv: list[str]) -> int:
    """Average, evaluate and write a run directory; returns 0."""
    parser = FlagParser(
        "average",
        "Average the weights of finished runs that share a topology bit for bit, into a new run directory.",
        "Ingredients: train --config.topology.method=static with equal seeds.topology and seeds.init, and another "
        "seeds.data, optim.lr or optim.weight_decay for each. 'evaluate' and 'generate' read the result.",
    )
    parser.add_argument("--runs", required=True, help="run directories, comma-separated, at least two")
    parser.add_argument("--out", required=True, type=Path, help="new run directory; never overwritten")
    flags = parser.parse_args(argv)

    from sparsejax.training.average import average_runs

    console = Console()

    def notice(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    soup = average_runs([Path(name) for name in flags.runs.split(",") if name], flags.out, notice)
    for name, loss in zip(soup.ingredients, soup.losses, strict=True):
        notice(f"{name}: {loss:.5f} nats/token")
    found = soup.average
    notice(
        f"{flags.out}: {found.loss:.5f} nats/token, {found.bits_per_byte:.5f} bits/byte, the mean of "
        f"{len(soup.losses)} runs on the same {found.tokens:,} validation tokens"
    )
    return 0
