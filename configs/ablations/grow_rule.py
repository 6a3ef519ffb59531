"""Which blocks should come: drawn at random, or by their gradient?

Papers: SMET, arXiv 2606.00888, grows at random or by gradient; the code of the repeated-data law, arXiv 2606.01155, has
the other rules. All with SMET's optimizer, so that only the choice differs. Rules that look back see the last 10 of the
20 steps between rewirings.

    sparsejax sweep --config=configs/ablations/grow_rule.py --workdir=runs/grow_rule

Hardware: two CPU cores. 18 runs, about 10 minutes.
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
    """Random first."""
    single = [{"topology.grow": grow} for grow in ("random", "gradient", "mix")]
    summed = [
        {"topology.grow": grow, "topology.score_steps": 10} for grow in ("gradient_sum", "momentum", "momentum_neuron")
    ]
    return single + summed
