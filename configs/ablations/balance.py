"""Does it cost anything to give every share or every block column the same number of blocks?

Balance is what kernels and tensor parallelism want: equal shares keep devices equally busy, equal columns need no
pointers. Neither is in the papers, whose counts float freely. Two shares cut the columns of q, k, v, gate and up and
the rows of o and down.

    sparsejax sweep --config=configs/ablations/balance.py --workdir=runs/balance

Hardware: two CPU cores. 9 runs, about 5 minutes.
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
    """Free counts first, then equal shares, then equal columns."""
    return [
        {"topology.shards": 1, "topology.balance": "none"},
        {"topology.shards": 2, "topology.balance": "none"},
        {"topology.shards": 1, "topology.balance": "column"},
    ]
