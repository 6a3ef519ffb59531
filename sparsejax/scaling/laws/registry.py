"""Every law by its name."""

from __future__ import annotations

from sparsejax.scaling.laws.architecture import EXPERTS, VOCABULARY
from sparsejax.scaling.laws.dense import AVERAGE_PARAMETERS, CHINCHILLA, CHINCHILLA_TIED, POWER_LAW, RECTIFIED
from sparsejax.scaling.laws.law import Law
from sparsejax.scaling.laws.repeated import DATA_CONSTRAINED, OVERFITTING
from sparsejax.scaling.laws.sparse import SPARSE_OVERFITTING, SPARSE_REPEATED, SPARSELY_CONNECTED

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        SPARSE_REPEATED,
        CHINCHILLA,
        CHINCHILLA_TIED,
        DATA_CONSTRAINED,
        SPARSELY_CONNECTED,
        AVERAGE_PARAMETERS,
        OVERFITTING,
        SPARSE_OVERFITTING,
        VOCABULARY,
        EXPERTS,
        POWER_LAW,
        RECTIFIED,
    )
}


def law_named(name: str) -> Law:
    """The law of that name.

    Raises:
      ValueError: no such law; the message lists the names.
    """
    if name not in LAWS:
        raise ValueError(f"law={name}: unknown; use one of {', '.join(LAWS)}")
    return LAWS[name]
