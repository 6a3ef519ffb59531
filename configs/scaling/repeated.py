"""Runs for a scaling law of our own: sizes x densities x unique tokens x epochs, on real prose.

Question: does sparsity delay the saturation of repeated data at this scale, and does a law that can rise again fit what
a saturating one cannot? (arXiv 2606.01155; the overfitting form of arXiv 2605.09189.)

    export SPARSEJAX_BOOKS=<directory>
    for size in small medium large; do
        sparsejax sweep --config=configs/scaling/repeated.py:$size --workdir=runs/repeated/$size
    done
    sparsejax fit --rows=runs/repeated --save-rows=docs/results/repeated.csv --parameters=active_non_embedding \
        --law=sparse_overfitting --fix=L0=8.317766 --free=eta --starts=384 --out=runs/repeated-fit

Each of the 36 trunks is the longest run of its size, density and text; shorter ones start from its checkpoints, where
their own rate begins to fall, and are bit for bit what they would be alone (`sparsejax/training/trunk.py`). So all
settings but the length are equal: the rate holds after 32 steps of warm-up and falls in the last quarter, and blocks
are rewired, always the same share of them, until the rate falls. One seed. One 4k BPE, trained on the whole of the
text. The peak rates come from configs/scaling/repeated_lr.py and hold for every run.

Hardware: two CPU cores, about six hours by arithmetic, most of it the large size. 144 runs.
Measured: 60 runs of small and medium, docs/RESULTS.md (section Repeated text)
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base
from sparsejax.config import ConfigError

SEEDS = (0,)
SHARE_TRUNKS = True

# hidden, mlp, heads, layers: 0.11, 0.36 and 0.85 M parameters without embedding and head, heads of 32.
SIZES = {"small": (64, 192, 2, 2), "medium": (96, 288, 3, 3), "large": (128, 384, 4, 4)}
DENSITIES = (1.0, 0.5, 0.25, 0.125)
# Unique tokens, and epochs of them; the trunk first. Three texts, because an exponent of U needs three values.
EPOCHS = {262_144: (16, 8, 4, 2, 1), 1_048_576: (4, 2, 1), 524_288: (8, 4, 2, 1)}
TOKENS_PER_STEP = 1024
WARMUP_STEPS = 32


def get_config(size: str) -> ConfigDict:
    """The prose run at one of the sizes, with schedules that do not depend on the length, and what a trunk keeps."""
    if size not in SIZES:
        raise ConfigError(f"size={size}: name one, configs/scaling/repeated.py:<{'|'.join(SIZES)}>")
    c = base()
    hidden, mlp, heads, layers = SIZES[size]
    c.model.update(size=size, hidden=hidden, mlp=mlp, heads=heads, kv_heads=heads, layers=layers)
    c.topology.update(block=(8, 8), every=16, rate=0.1, rate_schedule="constant", stop_fraction=0.75)
    c.optim.update(lr=1e-3, vocabulary_lr_ratio=8.0, schedule="wsd", decay_fraction=0.25, min_ratio=0.0)
    c.train.update(steps=0, epochs=1, eval_tokens=100_000)
    # A shorter run, of 256 x 2^k steps, starts from a checkpoint after three quarters of them.
    c.train.update(checkpoint_every=192, keep_every=192)
    return c


def points() -> list[dict[str, Any]]:
    """Every density with every text; the longest run of each comes before those that start from it."""
    return [
        {
            **density_of(density),
            "data.unique_tokens": unique,
            "train.epochs": epochs,
            "optim.warmup_fraction": WARMUP_STEPS * TOKENS_PER_STEP / (unique * epochs),
        }
        for unique, lengths in EPOCHS.items()
        for density in DENSITIES
        for epochs in lengths
    ]


def density_of(density: float) -> dict[str, Any]:
    """The settings of one density, dense included."""
    return {"topology.method": "dense" if density == 1.0 else "smet", "topology.density": density}
