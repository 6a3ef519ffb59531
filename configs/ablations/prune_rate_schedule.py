"""How many blocks should a rewiring replace, and how should that number fall?

Paper: SMET, arXiv 2606.00888: a rate from 0.1 to 0.5 that falls to 0.005 along a cosine; constant, linear and WSD are
the other shapes of its code.

    sparsejax sweep --config=configs/ablations/prune_rate_schedule.py --workdir=runs/prune_rate_schedule

Hardware: two CPU cores. 12 runs, about 6 minutes.
Measured: not yet
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0, 1)


def get_config() -> ConfigDict:
    """The prose run unchanged."""
    return base()


def points() -> list[dict[str, Any]]:
    """The cosine of prose.py first; then other shapes; then other rates."""
    shapes = [{"topology.rate_schedule": shape} for shape in ("cosine", "linear", "constant", "wsd")]
    return shapes + [{"topology.rate": rate} for rate in (0.1, 0.5)]
