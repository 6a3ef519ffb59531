"""Do regrown weights start too fast under plain Adam, and which remedy helps?

Paper: SMET, arXiv 2606.00888, the cold start and its figure of loss spikes. Plain Adam corrects the bias of a new
weight's moments by the count of the whole run, so its first updates are up to 6.6 learning rates long. The remedies one
by one: an age of its own for each block (ramp 1), the same with a linear ramp (SMET), and what the published code
computes. The learning rate is SMET's in all of them. Blocks of one weight, because in larger ones most of what a
rewiring costs is the drop.

    sparsejax sweep --config=configs/ablations/cold_start.py --workdir=runs/cold_start

Hardware: two CPU cores. 12 runs, about 8 minutes.
Measured: not yet
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0, 1, 2)


def get_config() -> ConfigDict:
    """The prose run with unstructured blocks."""
    c = base()
    c.topology.block = (1, 1)
    return c


def points() -> list[dict[str, Any]]:
    """Plain Adam first, then the remedies."""
    return [
        {"optim.form": "naive"},
        {"optim.form": "smet", "optim.ramp": 1},
        {"optim.form": "smet"},
        {"optim.form": "smet_code"},
    ]
