"""Which learning rate does each of the six core methods want at this size?

Paper: SMET, arXiv 2606.00888, section on density-aware learning rates. A method compared at another method's rate is
not compared at all; configs/ablations/methods.py takes the best rate of this grid for each. SMET's rate is that of a
dense weight: at density 0.25 and exponent 0.5 its sparse weights move at twice the rate given here.

    sparsejax sweep --config=configs/ablations/methods_lr.py --workdir=runs/methods_lr

Hardware: two CPU cores. 24 runs, about 12 minutes.
Measured: dense 2e-3; static, set and rigl 4e-3; smet 2e-3; smet_rigl 4e-3, by little. docs/RESULTS.md.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0,)
METHODS = ("dense", "static", "set", "rigl", "smet", "smet_rigl")
RATES = (1e-3, 2e-3, 4e-3, 8e-3)


def get_config() -> ConfigDict:
    """The prose run unchanged."""
    return base()


def points() -> list[dict[str, Any]]:
    """Six methods at four rates; dense is the only one at density 1."""
    return [{"topology.method": method, **density(method), "optim.lr": rate} for method in METHODS for rate in RATES]


def density(method: str) -> dict[str, Any]:
    """What dense needs beside its name."""
    return {"topology.density": 1.0} if method == "dense" else {}
