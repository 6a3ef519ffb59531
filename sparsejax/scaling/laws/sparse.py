"""Laws of models that are sparse: pruned on the way, or from the first step to the last."""

from __future__ import annotations

import math
from typing import Any

from sparsejax.scaling.laws.law import Law, Parameter, Published, coefficient, grid, power, saturating

_E = Parameter("E", 0.5, 3.0, positive=True)
_ALPHA, _BETA = Parameter("alpha", 0.1, 0.8), Parameter("beta", 0.1, 0.8)
# Near 0 the factor would jump between dense and nearly dense, where no run can say what happens.
_MU = Parameter("mu", 0.4, 2.0, positive=True, least=0.2)
_DENSITIES = (1.0, 0.75, 0.5, 0.25, 0.125)


def density_factor(p: Any, S: Any, xp: Any) -> Any:
    """f(S) = S^eps + c (1 - S)^mu, by which density changes what a parameter is worth; 1 where dense."""
    return S**p.eps + p.c * power(1 - S, p.mu, xp)


def repetition_limits(p: Any, S: Any) -> tuple[Any, Any]:
    """``(n*, d*)``: how many times over excess parameters and repeated tokens can count at density ``S``."""
    sparsity = 1 - S
    return (
        p.g1 * (1 + p.c11 * sparsity - p.c21 * sparsity**2),
        p.g2 * (1 + p.c12 * sparsity - p.c22 * sparsity**2),
    )


def _sparse_repeated(p: Any, x: Any, xp: Any) -> Any:
    """L = E + A f(S)/N'^alpha + B/D'^alpha, f(S) = S^eps + c (1 - S)^mu.

    N' = U_N (1 + n* (1 - exp(-r_N/n*))), D' = U (1 + d* (1 - exp(-r_D/d*))), r_N = max(N/U_N - 1, 0),
    r_D = max(D/U - 1, 0), U_N = min(N, G^2 U), G = (A f(S)/B)^(1/(2 alpha)),
    n* = g1 (1 + c11 (1 - S) - c21 (1 - S)^2), d* = g2 (1 + c12 (1 - S) - c22 (1 - S)^2).
    arXiv 2606.01155. N counts total parameters times density there, the dense embedding included.
    """
    f = density_factor(p, x.S, xp)
    n_limit, d_limit = repetition_limits(p, x.S)
    fed = xp.minimum(x.N, (p.A * f / p.B) ** (1 / p.alpha) * x.U)
    unique = xp.minimum(x.D, x.U)
    size = fed * (1 + saturating(xp.maximum(x.N / fed - 1, 0.0), n_limit, xp))
    tokens = unique * (1 + saturating(xp.maximum(x.D / unique - 1, 0.0), d_limit, xp))
    return p.E + p.A * f * size**-p.alpha + p.B * tokens**-p.alpha


def _sparsely_connected(p: Any, x: Any, xp: Any) -> Any:
    """L = E + (A S^b + C)/N^alpha + B/D^beta, N the weights that are not zero.

    Frantar et al., arXiv 2309.08520: models pruned during training to density S.
    """
    return p.E + (p.A * power(x.S, p.b, xp) + p.C) * x.N**-p.alpha + p.B * x.D**-p.beta


def _sparse_overfitting(p: Any, x: Any, xp: Any) -> Any:
    """L = E + (L0 - E) h/(1 + h), h = a f(S)/N^(alpha + lam (1 - S)) + b/D^beta + c S^kappa N^gamma (D/U)^eta/U^delta.

    f(S) = 1 + w (1 - S)^mu, N active parameters. The form of arXiv 2605.09189 with the density factor of arXiv
    2606.01155, put together here. kappa asks what overfits: 0, the active parameters; -gamma, as many as the dense twin
    has, since S^-gamma N^gamma = (N/S)^gamma; above 0, sparsity protects beyond its size. Two are held at 0 unless
    freed: lam lets the exponent of N depend on density; eta lets overfitting grow with epochs, without which the law
    rises with size alone.
    """
    f = 1 + p.w * power(1 - x.S, p.mu, xp)
    h = p.a * f * x.N ** -(p.alpha + p.lam * (1 - x.S)) + p.b * x.D**-p.beta
    h = h + p.c * power(x.S, p.kappa, xp) * x.N**p.gamma * (x.D / x.U) ** p.eta * x.U**-p.delta
    return p.E + (p.L0 - p.E) * h / (1 + h)


_RUNS = grid(N=(2e7, 1e8, 5e8, 2.5e9), U=(1e8, 1e9, 1e10), epochs=(1.0, 4.0, 16.0, 64.0), S=_DENSITIES)
_REPEATED = {"N": _RUNS["N"], "D": _RUNS["U"] * _RUNS["epochs"], "U": _RUNS["U"], "S": _RUNS["S"]}

_WU = {
    "E": math.exp(0.8535501324918354),
    "A": math.exp(5.240737178917673),
    "B": math.exp(6.103030891809012),
    "alpha": 0.3268217718148829,
    "eps": -0.009680437509279435,
    "mu": 0.8466179337054532,
    "c": -0.2728893199074849,
    "g1": 11.087637121468322,
    "g2": 4.404748822323469,
    "c11": 1.9039562899771467,
    "c12": 1.8213812238803706,
    "c21": 2.79909312658146,
    "c22": 1.3653091691735397,
}

SPARSE_REPEATED = Law(
    name="sparse_repeated",
    predict=_sparse_repeated,
    parameters=(
        _E,
        coefficient("A", "N", "alpha"),
        coefficient("B", "D", "alpha"),
        _ALPHA,
        Parameter("eps", -0.2, 0.2),
        _MU,
        Parameter("c", -0.6, 0.6),
        Parameter("g1", 1.0, 40.0, positive=True),
        Parameter("g2", 1.0, 40.0, positive=True),
        Parameter("c11", -1.0, 3.0),
        Parameter("c12", -1.0, 3.0),
        Parameter("c21", -1.0, 3.0),
        Parameter("c22", -1.0, 3.0),
    ),
    columns=("N", "D", "U", "S"),
    design=_REPEATED,
    repetition=("g2", "c12", "c22"),
    example=_WU,
    published=(
        Published(
            _WU,
            "Wu et al., arXiv 2606.01155, from the authors' fitting notebook (500 runs, four stages)",
            "total times density, embedding included",
        ),
    ),
)

# Printed for N in millions of weights and D in 1e5 steps.
_T5 = {
    "E": 0.65074219,
    "A": 0.56778512 * 1e6**0.24513173,
    "b": 0.72161276,
    "C": 1.52265016 * 1e6**0.24513173,
    "B": 0.63361517 * 1e5**0.20270772,
    "alpha": 0.24513173,
    "beta": 0.20270772,
}

SPARSELY_CONNECTED = Law(
    name="sparsely_connected",
    predict=_sparsely_connected,
    parameters=(
        Parameter("E", 0.1, 2.0, positive=True),
        coefficient("A", "N", "alpha"),
        Parameter("b", 0.2, 2.0),
        coefficient("C", "N", "alpha"),
        coefficient("B", "D", "beta"),
        _ALPHA,
        _BETA,
    ),
    columns=("N", "D", "S"),
    design=grid(N=(1e6, 4e6, 1.6e7, 6.4e7), D=(2.5e4, 1e5, 4e5, 1.6e6, 6.4e6), S=_DENSITIES),
    example=_T5,
    published=(
        Published(
            _T5,
            "Frantar et al., arXiv 2309.08520, T5 on C4, the authors' notebook; a start that stalled, not an optimum",
            "weights that are not zero, without embedding; D in steps",
        ),
    ),
)

_OVERFITTING = (("N", "gamma", 1.0), ("U", "delta", -1.0), ("D", "eta", 1.0), ("U", "eta", -1.0))

SPARSE_OVERFITTING = Law(
    name="sparse_overfitting",
    predict=_sparse_overfitting,
    parameters=(
        _E,
        coefficient("a", "N", "alpha", low=0.005, high=0.5),
        coefficient("b", "D", "beta", low=0.005, high=0.5),
        Parameter("c", 0.001, 0.3, positive=True, centred=_OVERFITTING),
        _ALPHA,
        _BETA,
        Parameter("gamma", 0.0, 1.0),
        Parameter("delta", 0.1, 1.5),
        Parameter("kappa", -1.0, 1.0),
        Parameter("w", -0.6, 0.6),
        _MU,
        Parameter("lam", -0.1, 0.1, held=0.0),
        Parameter("eta", 0.0, 2.0, held=0.0),
        Parameter("L0", 8.0, 12.0, positive=True, held=math.log(32000)),
    ),
    columns=("N", "D", "U", "S"),
    design=_REPEATED,
    repetition=("delta", "eta"),
    example={
        "E": 1.6,
        "a": 38.0,
        "b": 160.0,
        "c": 6.0,
        "alpha": 0.33,
        "beta": 0.35,
        "gamma": 0.4,
        "delta": 0.6,
        "kappa": 0.25,
        "w": -0.27,
        "mu": 0.85,
    },
)
