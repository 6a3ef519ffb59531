"""With which power of the density should the learning rate of a sparse weight grow?

Paper: SMET, arXiv 2606.00888, density-aware learning rate. Its text has the exponent 1/2; the rates of its launch
files follow 1. The rate of a weight is lr * density ** -exponent, and lr is the same everywhere, so exponent 0 is the
dense rate.

    sparsejax sweep --config=configs/ablations/density_lr.py --workdir=runs/density_lr

Hardware: two CPU cores. 24 runs, about 12 minutes.
Measured: one seed, so a direction only: exponent 0 is best at every density at this size. docs/RESULTS.md.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0, 1)


def get_config() -> ConfigDict:
    """The prose run unchanged."""
    return base()


def points() -> list[dict[str, Any]]:
    """Three exponents at four densities."""
    return [
        {"topology.density": density, "optim.density_exponent": exponent}
        for density in (0.5, 0.25, 0.125, 0.0625)
        for exponent in (0.0, 0.5, 1.0)
    ]
