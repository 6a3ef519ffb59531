"""Where do the loss spikes of a rewiring come from: from the blocks that go, or from the cold start of those that come?

Paper: SMET, arXiv 2606.00888, figure 1 and section 3. These runs only keep checkpoints; `sparsejax branch` goes on
from them without a rewiring, with the drop alone, and with the whole rewiring in each optimizer form:

    sparsejax sweep --config=configs/ablations/spikes.py --workdir=runs/spikes
    sparsejax branch --workdir=runs/spikes/block=1x1/seed0 --at=150,200,250 --saturate=20000 --out=branch.csv

Hardware: two CPU cores. 9 runs, about 9 minutes.
A branch test takes two minutes more.
Measured: with saturated counts, 3 seeds and 2 rewirings each, the cold start costs plain Adam 0.012 nats over the 20
steps after a rewiring at block 1, SMET 3 % of that; dropping alone costs nothing on average. docs/RESULTS.md.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0, 1, 2)


def get_config() -> ConfigDict:
    """The prose run with a checkpoint every 50 steps."""
    c = base()
    c.train.update(checkpoint_every=50, keep_last=8)
    return c


def points() -> list[dict[str, Any]]:
    """Unstructured, where the cold start shows, and blocks, where the drop does."""
    return [{"topology.block": (side, side)} for side in (1, 16, 32)]
