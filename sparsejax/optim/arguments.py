"""Numbers that callers of the library hand in, held against the ranges that configs have.

``optax.inject_hyperparams`` hands in arrays, whose values are not known inside a program: those are taken as they are.
"""

from __future__ import annotations

from typing import Any

import jax

from sparsejax.config import check_argument


def check_hyperparameters(**values: Any) -> None:
    """Raise ``ConfigError`` for a value that the setting of the same name in section ``optim`` would refuse."""
    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer):
            check_argument(name, value, "optim.lr" if name == "learning_rate" else f"optim.{name}")


def is_set(value: Any) -> bool:
    """Say whether a number is above 0, where 0 leaves a stage out; an injected array may be, so its stage is there."""
    return isinstance(value, jax.Array) or value > 0
