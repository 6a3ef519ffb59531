"""Which of the core methods trains best, each at its own learning rate?

Paper: SMET, arXiv 2606.00888, its main comparison. Equal tokens, equal density but for dense, and the rate that
methods_lr.py found best. The naive methods run a second time at SMET's rates (exponent 0.5), to tell what the optimizer
form gives from what the rate gives.

    sparsejax sweep --config=configs/ablations/methods.py --workdir=runs/methods

Hardware: two CPU cores. 45 runs, about 33 minutes.
Measured: SMET 5.145, SET 4.946, SMET without its density rate 4.938, errors 0.004 to 0.007. docs/RESULTS.md.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0, 1, 2, 3, 4)
# Peak rate of a dense weight, the best of methods_lr.py.
RATES = {"dense": 2e-3, "static": 4e-3, "set": 4e-3, "rigl": 4e-3, "smet": 2e-3, "smet_rigl": 4e-3}


def get_config() -> ConfigDict:
    """The prose run unchanged."""
    return base()


def points() -> list[dict[str, Any]]:
    """Dense first, then the sparse methods, the naive ones at SMET's rates, and SMET's update at the naive rates."""
    tuned: list[dict[str, Any]] = [{"topology.method": method, "optim.lr": rate} for method, rate in RATES.items()]
    tuned[0]["topology.density"] = 1.0
    naive: list[dict[str, Any]] = [
        {"topology.method": method, "optim.density_exponent": 0.5, "optim.lr": RATES["smet"]}
        for method in ("set", "rigl")
    ]
    return [*tuned, *naive, {"topology.method": "smet", "optim.density_exponent": 0.0, "optim.lr": RATES["set"]}]
