"""How do other ways to a small or sparse model compare with SMET?

Sources: sparsejax/topology/methods.py has one for each method. All but galore have the active parameters of SMET at
density 0.25: SR-STE and its flow keep 1 of 4 weights, though all are stored; Monarch's factors are static; the dense
model is as narrow as it takes, with the same embedding. GaLore trains all weights and saves optimizer state only. One
rate for all, so this ranks nothing finely: a method that wants another rate is at a disadvantage.

    sparsejax sweep --config=configs/ablations/baselines.py --workdir=runs/baselines

Hardware: two CPU cores. 36 runs, about 18 minutes.
Measured: one seed at an untuned rate, 5.03 to 5.21: all of them train, no ranking. docs/RESULTS.md.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.prose import get_config as base

SEEDS = (0, 1, 2)


def get_config() -> ConfigDict:
    """The prose run unchanged."""
    return base()


def points() -> list[dict[str, Any]]:
    """SMET first, then dense baselines, then other structures, then other ways to rewire."""
    narrow = {"model.heads": 1, "model.kv_heads": 1, "model.mlp": 96}
    return [
        {"topology.method": "smet"},
        {"topology.method": "dense", "topology.density": 1.0, **narrow},
        {"topology.method": "galore", "topology.density": 1.0, "optim.galore_rank": 32},
        {"topology.method": "sr_ste", "topology.nm": (1, 4)},
        {"topology.method": "sr_ste", "topology.nm": (1, 4), "topology.flow": "mask_exp"},
        {"topology.method": "monarch"},
        *({"topology.method": name} for name in ("soft", "mix", "rigl_acc", "rigl_momentum", "gmp", "smet_code")),
    ]
