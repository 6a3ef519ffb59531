"""Which peak rates do the runs of configs/scaling/repeated.py take?

Two rates each for the inner matrices and for embedding and head, of a dense and a sparse model of the middle size, on
two epochs of the longer text.

    SPARSEJAX_BOOKS=<directory> sparsejax sweep --config=configs/scaling/repeated_lr.py --workdir=runs/repeated_lr

Hardware: two CPU cores. 12 runs, about 15 minutes by arithmetic.
Measured: one seed: lr 1e-3 with ratio 8 ends at 5.019 dense and 5.073 sparse, within 0.04 of the best
of either.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.scaling.repeated import TOKENS_PER_STEP, WARMUP_STEPS, density_of
from configs.scaling.repeated import get_config as base

SEEDS = (0,)
UNIQUE, EPOCHS = 262_144, 2


def get_config() -> ConfigDict:
    """One run of the study."""
    c = base("medium")
    c.data.unique_tokens = UNIQUE
    c.train.epochs = EPOCHS
    c.optim.warmup_fraction = WARMUP_STEPS * TOKENS_PER_STEP / (UNIQUE * EPOCHS)
    return c


def points() -> list[dict[str, Any]]:
    """Dense and sparse, three rates, two ratios."""
    return [
        {**density_of(density), "optim.lr": lr, "optim.vocabulary_lr_ratio": ratio}
        for density in (1.0, 0.25)
        for lr in (5e-4, 1e-3, 2e-3)
        for ratio in (2.0, 8.0)
    ]
