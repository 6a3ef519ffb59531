"""Laws of dense models that see tokens more than once."""

from __future__ import annotations

import math
from typing import Any

from sparsejax.scaling.laws.law import Law, Parameter, Published, coefficient, grid, saturating

_E = Parameter("E", 0.5, 3.0, positive=True)
_ALPHA, _BETA = Parameter("alpha", 0.1, 0.8), Parameter("beta", 0.1, 0.8)


def _data_constrained(p: Any, x: Any, xp: Any) -> Any:
    """L = E + A/N'^alpha + B/D'^beta, N' = U_N (1 + R_N (1 - exp(-r_N/R_N))), D' = U (1 + R_D (1 - exp(-r_D/R_D))).

    r_N = max(N/U_N - 1, 0), r_D = max(D/U - 1, 0), U_N = min(N, (G U)^(beta/alpha) G) with
    G = (alpha A/(beta B))^(1/(alpha + beta)). R_N and R_D are the R* of Muennighoff et al., arXiv 2305.16264.
    """
    scale = (p.alpha * p.A / (p.beta * p.B)) ** (1 / (p.alpha + p.beta))
    fed = xp.minimum(x.N, (scale * x.U) ** (p.beta / p.alpha) * scale)
    unique = xp.minimum(x.D, x.U)
    size = fed * (1 + saturating(xp.maximum(x.N / fed - 1, 0.0), p.R_N, xp))
    tokens = unique * (1 + saturating(xp.maximum(x.D / unique - 1, 0.0), p.R_D, xp))
    return p.E + p.A * size**-p.alpha + p.B * tokens**-p.beta


def _overfitting(p: Any, x: Any, xp: Any) -> Any:
    """L = E + (L0 - E) h/(1 + h), h = a/N^alpha + b/D^beta + c N^gamma/U^delta.

    arXiv 2605.09189. L0 is the loss of a model that knows nothing, the logarithm of the vocabulary's size. Bounded by E
    and L0, and unlike the saturating laws it can rise: with N at fixed U through c.
    """
    h = p.a * x.N**-p.alpha + p.b * x.D**-p.beta + p.c * x.N**p.gamma * x.U**-p.delta
    return p.E + (p.L0 - p.E) * h / (1 + h)


_RUNS = grid(N=(2e7, 1e8, 5e8, 2.5e9), U=(1e8, 4e8, 1.6e9, 6.4e9), epochs=(1.0, 3.0, 10.0, 30.0, 100.0))
_REPEATED = {"N": _RUNS["N"], "D": _RUNS["U"] * _RUNS["epochs"], "U": _RUNS["U"]}

DATA_CONSTRAINED = Law(
    name="data_constrained",
    predict=_data_constrained,
    parameters=(
        _E,
        coefficient("A", "N", "alpha"),
        coefficient("B", "D", "beta"),
        _ALPHA,
        _BETA,
        Parameter("R_N", 0.5, 50.0, positive=True),
        Parameter("R_D", 2.0, 200.0, positive=True),
    ),
    columns=("N", "D", "U"),
    design=_REPEATED,
    repetition=("R_D",),
    example={"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.34, "beta": 0.37, "R_N": 5.3, "R_D": 15.4},
    published=(
        Published(
            {
                "E": math.exp(0.6254804),
                "A": math.exp(6.255414),
                "B": math.exp(7.3049974),
                "alpha": 0.3526596,
                "beta": 0.3526596,
                "R_N": 5.309743,
                "R_D": 15.387756,
            },
            "Muennighoff et al., arXiv 2305.16264, the authors' notebook; a local minimum of its objective",
            "total, embedding included",
        ),
    ),
)

OVERFITTING = Law(
    name="overfitting",
    predict=_overfitting,
    parameters=(
        _E,
        coefficient("a", "N", "alpha", low=0.005, high=0.5),
        coefficient("b", "D", "beta", low=0.005, high=0.5),
        Parameter("c", 0.001, 0.3, positive=True, centred=(("N", "gamma", 1.0), ("U", "delta", -1.0))),
        _ALPHA,
        _BETA,
        Parameter("gamma", 0.0, 1.0),
        Parameter("delta", 0.1, 1.5),
        # The vocabulary of GPT-2, with which the public runs under repetition were trained.
        Parameter("L0", 8.0, 12.0, positive=True, held=math.log(50257)),
    ),
    columns=("N", "D", "U"),
    design=_REPEATED,
    repetition=("delta",),
    example={
        "E": 1.6,
        "a": 38.0,
        "b": 160.0,
        "c": 6.0,
        "alpha": 0.33,
        "beta": 0.35,
        "gamma": 0.4,
        "delta": 0.6,
    },
)
