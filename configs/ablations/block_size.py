"""What does a larger block cost in loss, and what does it gain in speed?

Paper: SMET, arXiv 2606.00888, whose block is a run of consecutive weights, by default one. A square block of 16 leaves
8 block rows and columns in a weight of width 128; with fewer a topology has hardly anything to choose. Speed is the
column `tokens_per_second`, measured without compilation and evaluation.

    sparsejax sweep --config=configs/ablations/block_size.py --workdir=runs/block_size

Hardware: two CPU cores. 12 runs, about 8 minutes.
Measured: 5.091, 5.090, 5.102, 5.139 at 1, 4, 8, 16, errors 0.003 to 0.011: 16 is worse. docs/RESULTS.md.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0, 1, 2)


def get_config() -> ConfigDict:
    """The prose run unchanged."""
    return base()


def points() -> list[dict[str, Any]]:
    """Unstructured first, then square blocks."""
    return [{"topology.block": (side, side)} for side in (1, 4, 8, 16)]
