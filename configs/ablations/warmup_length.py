"""Over how many updates should a regrown weight's rate rise?

Paper: SMET, arXiv 2606.00888, optimizer warm-up, where the ramp W is about as long as the 100 steps between two
rewirings. Here these are 20 steps; ramp 1 is none, and at 40 no weight ever reaches its full rate before the next
rewiring. Blocks of one weight, as in cold_start.py.

    sparsejax sweep --config=configs/ablations/warmup_length.py --workdir=runs/warmup_length

Hardware: two CPU cores. 10 runs, about 7 minutes.
Measured: not yet
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0, 1)


def get_config() -> ConfigDict:
    """The prose run with unstructured blocks."""
    c = base()
    c.topology.block = (1, 1)
    return c


def points() -> list[dict[str, Any]]:
    """No ramp first; 20 is the ramp of prose.py."""
    return [{"optim.ramp": ramp} for ramp in (1, 5, 10, 20, 40)]
