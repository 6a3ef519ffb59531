"""Sparse-training methods as small named choices: what is dropped, what is grown, which optimizer form.

RigL is SET with another growth score; SMET is SET with another optimizer form. A method is a row of
``METHODS``; a config may change any single choice of it.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Method:
    """One sparse-training method.

    Attributes:
      drop: drop score, ``"magnitude"`` or ``"none"`` (the topology is fixed).
      grow: growth score, ``"random"`` or ``"none"``.
      form: form of sparse Adam, ``"smet"``, ``"smet_code"`` or ``"naive"``.
      density_exponent: p of the learning-rate rule ``scale(d) = d ** -p``.
      source: where the method comes from.
    """

    drop: str
    grow: str
    form: str
    density_exponent: float
    source: str


METHODS: dict[str, Method] = {
    "dense": Method("none", "none", "naive", 0.0, "density 1: the plain dense run"),
    "static": Method("none", "none", "naive", 0.0, "static sparse training: a random topology that stays"),
    "set": Method("magnitude", "random", "naive", 0.0, "SET, Mocanu et al. 2018"),
    "smet": Method("magnitude", "random", "smet", 0.5, "SMET, arXiv 2606.00888, as the paper writes it"),
    "smet_code": Method("magnitude", "random", "smet_code", 0.0, "SMET as its published code computes it"),
}
