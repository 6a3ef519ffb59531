"""How does the loss depend on density, with everything else equal?

Paper: SMET, arXiv 2606.00888, densities 0.5 to 0.0625 on C4. The shape stays, so fewer active weights are a smaller
model: this is the price of sparsity at equal width, not a comparison at equal parameters (see baselines.py for that).

    sparsejax sweep --config=configs/ablations/density.py --workdir=runs/density

Hardware: two CPU cores. 15 runs, about 8 minutes.
Measured: not yet
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0, 1, 2)


def get_config() -> ConfigDict:
    """The prose run unchanged."""
    return base()


def points() -> list[dict[str, Any]]:
    """Dense first."""
    dense: dict[str, Any] = {"topology.method": "dense", "topology.density": 1.0}
    return [dense] + [{"topology.density": density} for density in (0.5, 0.25, 0.125, 0.0625)]
