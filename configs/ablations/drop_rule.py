"""Which blocks should go?

Papers: SMET, arXiv 2606.00888, drops by magnitude; the code of the repeated-data law, arXiv 2606.01155, has the other
rules. `inverse` drops the largest and must be the worst: if it is not, the drop hardly matters at this size. `sign`
judges single weights, so for blocks it says little. The threshold is the mean |w| of the first weights.

    sparsejax sweep --config=configs/ablations/drop_rule.py --workdir=runs/drop_rule

Hardware: two CPU cores. 14 runs, about 9 minutes.
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
    """Magnitude first."""
    rules = ("magnitude", "taylor", "sign", "soft", "global_magnitude", "inverse")
    threshold = {"topology.drop": "threshold", "topology.drop_threshold": 0.016}
    return [{"topology.drop": drop} for drop in rules] + [threshold]
