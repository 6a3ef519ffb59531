"""How often should the topology change?

Paper: SMET, arXiv 2606.00888, rewires every 100 of 10,000 steps and more. Short runs must rewire more often to explore
as much; what counts is how the loss depends on it at a fixed rate of replacement. The ramp is as long as the interval,
as in the paper. At 400 the topology never changes.

    sparsejax sweep --config=configs/ablations/update_frequency.py --workdir=runs/update_frequency

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
    """The interval of prose.py first."""
    return [{"topology.every": every, "optim.ramp": every} for every in (20, 5, 10, 40, 80, 400)]
