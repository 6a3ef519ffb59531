"""``sparsejax advise``: which size, density and number of epochs, for so many unique tokens and FLOPs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsejax.cli.flags import FlagParser
from sparsejax.config import ConfigError
from sparsejax.scaling.advice import advise
from sparsejax.scaling.advice_report import advice_lines
from sparsejax.scaling.devices import most_parameters, skips_zeros
from sparsejax.scaling.frontier import Budget
from sparsejax.scaling.saved_fit import published_default, read


def main(argv: list[str]) -> int:
    """Print the best dense and the best sparse choice; returns 0."""
    parser = FlagParser(
        "advise",
        "Size, density and epochs for a budget, by a scaling law.",
        "Without --fit the published law of sparse training under repeated data (arXiv 2606.01155) answers.",
    )
    parser.add_argument("--unique-tokens", required=True, type=float, help="distinct training tokens at hand")
    parser.add_argument("--flops", required=True, type=float, help="training FLOPs, 6 N D")
    parser.add_argument("--fit", type=Path, help="fit.json of 'sparsejax fit'")
    parser.add_argument("--hardware", help="devices that will run it, such as v5p:4x4x4 or h200:64")
    parser.add_argument("--epochs", type=float, default=1000.0, help="most passes over the unique tokens")
    parser.add_argument("--least-density", type=float, default=0.0625, help="lowest density to consider")
    flags = parser.parse_args(argv)
    if not flags.epochs >= 1:
        parser.error(f"--epochs={flags.epochs:g}: must be at least 1")
    if not 0 < flags.least_density < 1:
        parser.error(f"--least-density={flags.least_density:g}: must be in (0, 1)")
    known = published_default() if flags.fit is None else read(flags.fit)
    system = None
    if flags.hardware is not None:
        from sparsejax.hardware.systems import parse_system

        try:
            system = parse_system(flags.hardware)
        except ValueError as error:
            raise ConfigError(f"--hardware={flags.hardware}: {error}") from None
    limit = None if system is None else most_parameters(system)
    budget = Budget(
        flops=flags.flops,
        unique_tokens=flags.unique_tokens,
        densities=(flags.least_density, 1.0),
        epochs=flags.epochs,
        overhead=np.ones_like if skips_zeros(system) else np.reciprocal,
        most_parameters=None if limit is None else lambda density: limit,
    )
    dense, sparse = advise(known, budget)
    print("\n".join(advice_lines(known, budget, dense, sparse, system)))
    return 0
