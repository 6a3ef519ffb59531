"""Should all weights have one density, or large ones less than small ones?

Paper: the code of the repeated-data law, arXiv 2606.01155, has both. Erdos-Renyi-kernel allocation gives a weight a
density in proportion to (in + out) / (in * out) at the same total, here more to attention and less to the MLP.

    sparsejax sweep --config=configs/ablations/allocation.py --workdir=runs/allocation

Hardware: two CPU cores. 6 runs, about 3 minutes.
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
    """Uniform first."""
    return [{"topology.allocation": allocation} for allocation in ("uniform", "erk")]
