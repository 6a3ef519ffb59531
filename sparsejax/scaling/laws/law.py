"""What a scaling law is: a pure function of named arrays and named parameters, with what a fit needs to know of both.

Columns that laws read, in units (parameters, tokens), one value a run:

    N      parameters, counted by the one convention that the table of runs states
    D      training tokens, repetitions counted
    U      unique training tokens
    S      density, in (0, 1]
    N_bar  active parameters averaged over training
    NV     parameters of embedding and head; V tokens in the vocabulary
    X      experts of a routed layer
    x      the one variable of a one-variable form

Laws are written for NumPy and JAX alike: the array namespace is an argument.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

Columns = Mapping[str, np.ndarray]
Values = Mapping[str, float]
# (parameters, columns, array namespace) -> loss, in nats/token.
Predict = Callable[[Any, Any, Any], Any]

# The logarithm of this is finite: what (1 - S)^mu needs at S = 1.
_TINY = 1e-300


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a law.

    Attributes:
      name: as the equation writes it.
      low: least value that starts of a fit are drawn from; of a centred parameter see ``centred``.
      high: greatest such value.
      positive: searched as the logarithm of what it is above ``least``, so that it stays above.
      least: see ``positive``.
      centred: ``(column, exponent, factor)`` for every power ``column^(factor exponent)`` that multiplies this
        coefficient. A fit searches the product at the geometric mean of the column, where coefficient and exponent
        are nearly independent, and ``low`` and ``high`` are of that product.
      held: value it keeps unless a fit is told to free it; None for a free parameter.
    """

    name: str
    low: float
    high: float
    positive: bool = False
    least: float = 0.0
    centred: tuple[tuple[str, str, float], ...] = ()
    held: float | None = None


@dataclasses.dataclass(frozen=True)
class Published:
    """Coefficients that somebody reported.

    Attributes:
      values: every parameter of the law that is not held.
      origin: paper, and place in it or in its code.
      counts: which parameters the authors' N counts.
    """

    values: Mapping[str, float]
    origin: str
    counts: str


# Equal only to itself, so that compiled programs can be kept by law.
@dataclasses.dataclass(frozen=True, eq=False)
class Law:
    """One scaling law.

    Attributes:
      name: as users write it.
      predict: the equation; its docstring states it and its source.
      parameters: in the order of the equation.
      columns: what ``predict`` reads of a run.
      design: columns of runs that identify every parameter: a fit of the law's own losses there gives them back.
      example: parameter values on which ``design`` was checked; the published ones where there are any.
      published: reported coefficients, the first being the default.
      repetition: parameters that only runs of different numbers of epochs show.
      residual: ``"log"`` for the logarithm of predicted over measured loss, ``"linear"`` for their difference.
    """

    name: str
    predict: Predict
    parameters: tuple[Parameter, ...]
    columns: tuple[str, ...]
    design: Columns
    example: Values
    published: tuple[Published, ...] = ()
    repetition: tuple[str, ...] = ()
    residual: Literal["log", "linear"] = "log"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def held(self) -> dict[str, float]:
        """Parameters that keep a value unless freed."""
        return {one.name: one.held for one in self.parameters if one.held is not None}

    @property
    def equation(self) -> str:
        """The equation with its source."""
        return (self.predict.__doc__ or "").strip()

    def compared(self, loss: Any, xp: Any = np) -> Any:
        """Losses as residuals compare them: their logarithms, or the losses themselves for a linear law."""
        return xp.log(loss) if self.residual == "log" else loss

    def loss_of(self, compared: Any, xp: Any = np) -> Any:
        """The losses of what ``compared`` gave."""
        return xp.exp(compared) if self.residual == "log" else compared

    @property
    def residual_unit(self) -> str:
        """Unit of residuals, scales and errors of this law."""
        return "log loss" if self.residual == "log" else "nats/token"

    @property
    def residual_label(self) -> str:
        """Axis label of residuals."""
        if self.residual == "log":
            return "log of predicted over measured loss"
        return "predicted minus measured loss (nats/token)"

    def loss(self, values: Mapping[str, Any], columns: Mapping[str, Any], xp: Any = np) -> Any:
        """Predicted loss of each run, in nats/token.

        Args:
          values: a value for every parameter; held ones may be left out.
          columns: an array for every name of ``self.columns``, broadcast against each other.
          xp: ``numpy`` or ``jax.numpy``.

        Raises:
          ValueError: a parameter or a column is missing or unknown.
        """
        given = {**self.held, **values}
        _check(f"law {self.name}: parameter", given, self.names)
        absent = [name for name in self.columns if name not in columns]
        if absent:
            raise ValueError(f"law {self.name}: column {', '.join(absent)} is missing")
        return self.predict(
            SimpleNamespace(**given), SimpleNamespace(**{name: columns[name] for name in self.columns}), xp
        )


def _check(what: str, given: Mapping[str, Any], wanted: tuple[str, ...]) -> None:
    for problem, names in (("missing", set(wanted) - given.keys()), ("unknown", given.keys() - set(wanted))):
        if names:
            raise ValueError(f"{what} {', '.join(sorted(names))} is {problem}")


def power(base: Any, exponent: Any, xp: Any) -> Any:
    """``base^exponent`` for ``base >= 0`` with gradients that are finite where the base is 0."""
    return xp.exp(exponent * xp.log(xp.maximum(base, _TINY)))


def saturating(times: Any, limit: Any, xp: Any) -> Any:
    """``limit (1 - exp(-times / limit))``: what ``times`` repetitions are worth, at most ``limit``."""
    return -limit * xp.expm1(-times / limit)


def coefficient(name: str, column: str, exponent: str, low: float = 0.02, high: float = 2.0) -> Parameter:
    """The positive coefficient of ``column^-exponent``; the term is between ``low`` and ``high`` at the centre."""
    return Parameter(name, low, high, positive=True, centred=((column, exponent, -1.0),))


def grid(**axes: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Columns of every combination of the axes' values."""
    rows = np.array(list(itertools.product(*axes.values())), dtype=np.float64)
    return dict(zip(axes, rows.T, strict=True))
