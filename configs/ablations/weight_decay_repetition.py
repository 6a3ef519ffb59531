"""When text is repeated, does weight decay help a sparse model as much as a dense one?

Papers: pre-training under infinite compute finds that repeated data wants some 30 times the usual weight decay; the
repeated-data law, arXiv 2606.01155, finds sparse models overfit less. Here 41 thousand tokens are read ten times.

    sparsejax sweep --config=configs/ablations/weight_decay_repetition.py --workdir=runs/weight_decay_repetition

Hardware: two CPU cores. 16 runs, about 8 minutes.
Measured: not yet
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0, 1)


def get_config() -> ConfigDict:
    """The prose run on 40,960 distinct tokens, ten epochs."""
    c = base()
    c.data.unique_tokens = 40_960
    return c


def points() -> list[dict[str, Any]]:
    """Dense and sparse, each without decay first."""
    dense: dict[str, Any] = {"topology.method": "dense", "topology.density": 1.0}
    decays = (0.0, 0.1, 0.4, 1.6)
    return [{**method, "optim.weight_decay": decay} for method in (dense, {}) for decay in decays]
