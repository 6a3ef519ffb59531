"""Sparse-training methods as small named choices: what is dropped, what is grown, which optimizer form.

RigL is SET with another growth score; SMET is SET with another optimizer form. A method is a row of
``METHODS``; a config may change any single choice of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# What every method decides; a row names only where it differs. A config that changes its method takes them all,
# so nothing of the method before is left behind.
_PLAIN_TOPOLOGY: Mapping[str, Any] = {
    "drop": "none",
    "grow": "none",
    "storage": "packed",
    "density_schedule": "constant",
    "score_steps": 1,
    "flow": "none",
}
_PLAIN_OPTIM: Mapping[str, Any] = {"form": "naive", "density_exponent": 0.0}
_SMET: Mapping[str, Any] = {"form": "smet", "density_exponent": 0.5}
_RIGL_STOP = 0.75


@dataclasses.dataclass(frozen=True)
class Method:
    """One sparse-training method.

    Attributes:
      source: where the method comes from.
      topology: settings of the config section ``topology`` that make the method.
      optim: settings of the config section ``optim``.
    """

    source: str
    topology: Mapping[str, Any]
    optim: Mapping[str, Any]

    @property
    def moves(self) -> bool:
        """Whether blocks leave or come during training."""
        return bool(self.topology["drop"] != "none")


def _method(source: str, optim: Mapping[str, Any], **topology: Any) -> Method:
    return Method(source, {**_PLAIN_TOPOLOGY, **topology}, {**_PLAIN_OPTIM, **optim})


METHODS: dict[str, Method] = {
    "dense": _method("density 1: the plain dense run", {}),
    "static": _method("static sparse training: a random topology that stays", {}),
    "set": _method("SET, Mocanu et al. 2018", {}, drop="magnitude", grow="random"),
    "rigl": _method("RigL, Evci et al. 2020", {}, drop="magnitude", grow="gradient", stop_fraction=_RIGL_STOP),
    "rigl_momentum": _method(
        "sparse momentum, Dettmers and Zettlemoyer 2019, with one moving average per block",
        {},
        drop="magnitude",
        grow="momentum",
        score_steps=10,
    ),
    "rigl_acc": _method(
        "RigL with gradients summed over the last steps, as the code of the repeated-data scaling law has it",
        {},
        drop="magnitude",
        grow="gradient_sum",
        score_steps=10,
        stop_fraction=_RIGL_STOP,
    ),
    "smet": _method("SMET, arXiv 2606.00888, as the paper writes it", _SMET, drop="magnitude", grow="random"),
    "smet_rigl": _method("SMET with RigL's growth, arXiv 2606.00888", _SMET, drop="magnitude", grow="gradient"),
    "smet_code": _method(
        "SMET as its published code computes it", {"form": "smet_code"}, drop="magnitude", grow="random"
    ),
    "soft": _method("soft magnitude, kept with odds |w|^T; repeated-data code", _SMET, drop="soft", grow="random"),
    "mix": _method("half gradient, half random growth; repeated-data code", _SMET, drop="magnitude", grow="mix"),
    "gmp": _method("gradual magnitude pruning, Zhu and Gupta 2017", {}, drop="magnitude", density_schedule="cubic"),
    "sr_ste": _method("SR-STE, Zhou et al. 2021: N:M with dense master weights", {}, storage="dense_master"),
    "monarch": _method("Monarch, Dao et al. 2022: two block-diagonal factors", {}, storage="monarch"),
    "galore": _method("GaLore, Zhao et al. 2024: dense weights, low-rank moments", {"form": "galore"}),
}
