"""Which of attention and MLP needs the parameters more?

Paper: the code of the repeated-data law, arXiv 2606.01155, has this ratio: density of attention over density of MLP, at
the same total.

    sparsejax sweep --config=configs/ablations/attention_mlp_ratio.py --workdir=runs/attention_mlp_ratio

Hardware: two CPU cores. 10 runs, about 5 minutes.
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
    """Equal densities first."""
    return [{"topology.attention_mlp_ratio": ratio} for ratio in (1.0, 0.25, 0.5, 2.0, 4.0)]
