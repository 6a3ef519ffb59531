"""With a fixed amount of text, how many epochs are worth it, and does that depend on density?

Paper: the repeated-data law, arXiv 2606.01155, whose finding is that sparse models profit from more epochs (d* 4.4
dense, 6.0 at density 1/2, 6.9 at 1/4). Every run draws from the same 51,200 tokens; 8 epochs are the 400 steps of
prose.py.

    sparsejax sweep --config=configs/ablations/density_epochs.py --workdir=runs/density_epochs

Hardware: two CPU cores. 24 runs, about 18 minutes.
Measured: not yet
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0, 1)


def get_config() -> ConfigDict:
    """The prose run on 51,200 distinct tokens, its length in epochs."""
    c = base()
    c.data.unique_tokens = 51_200
    c.train.update(steps=0, epochs=2)
    return c


def points() -> list[dict[str, Any]]:
    """Four densities, dense first, at 2, 8 and 24 epochs."""
    dense: dict[str, Any] = {"topology.method": "dense", "topology.density": 1.0}
    densities = [dense] + [{"topology.density": density} for density in (0.5, 0.25, 0.125)]
    return [{**density, "train.epochs": epochs} for density in densities for epochs in (2, 8, 24)]
