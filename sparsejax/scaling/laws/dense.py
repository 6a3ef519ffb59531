"""Laws of dense models that see each token once, and forms in one variable."""

from __future__ import annotations

from typing import Any

from sparsejax.scaling.laws.law import Law, Parameter, Published, coefficient, grid

_E = Parameter("E", 0.5, 3.0, positive=True)
_ALPHA, _BETA = Parameter("alpha", 0.1, 0.8), Parameter("beta", 0.1, 0.8)
_SIZES = (2e7, 6e7, 2e8, 6e8, 2e9)
_TOKENS = (4e8, 1.6e9, 6.4e9, 2.56e10, 1e11)


def _chinchilla(p: Any, x: Any, xp: Any) -> Any:
    """L = E + A/N^alpha + B/D^beta.

    Hoffmann et al., arXiv 2203.15556, their approach 3.
    """
    return p.E + p.A * x.N**-p.alpha + p.B * x.D**-p.beta


def _chinchilla_tied(p: Any, x: Any, xp: Any) -> Any:
    """L = E + A/N^alpha + B/D^alpha.

    One exponent for both terms, as Gadre et al., arXiv 2403.08540, have it (written there in compute and D/N).
    """
    return p.E + p.A * x.N**-p.alpha + p.B * x.D**-p.alpha


def _average_parameters(p: Any, x: Any, xp: Any) -> Any:
    """L = E + A/N_bar^alpha + B/D^beta, N_bar the active parameters averaged over training.

    Jin et al., "The Journey Matters", arXiv 2501.12486: Chinchilla's form where density changes during training.
    """
    return p.E + p.A * x.N_bar**-p.alpha + p.B * x.D**-p.beta


def _power_law(p: Any, x: Any, xp: Any) -> Any:
    """L = E + A/x^alpha, in tokens, parameters or FLOPs.

    Hestness et al., arXiv 1712.00409; Henighan et al., arXiv 2010.14701. At one size or one token budget E is the
    asymptote, as Kim et al., arXiv 2509.14786, use it.
    """
    return p.E + p.A * x.x**-p.alpha


def _rectified(p: Any, x: Any, xp: Any) -> Any:
    """L = E + B/(K + x^beta).

    The rectified law of fine-tuning, Lin et al., arXiv 2402.02314: K is what the model already knows.
    """
    return p.E + p.B / (p.K + x.x**p.beta)


CHINCHILLA = Law(
    name="chinchilla",
    predict=_chinchilla,
    parameters=(_E, coefficient("A", "N", "alpha"), coefficient("B", "D", "beta"), _ALPHA, _BETA),
    columns=("N", "D"),
    design=grid(N=_SIZES, D=_TOKENS),
    example={"E": 1.8172, "A": 477.8, "B": 2143.4, "alpha": 0.3473, "beta": 0.3672},
    published=(
        Published(
            {"E": 1.81686, "A": 482.00572, "B": 2085.4342, "alpha": 0.34781, "beta": 0.36585},
            "Besiroglu et al., arXiv 2404.10102, refit of 240 runs read off figure 4 of arXiv 2203.15556",
            "total, embedding included",
        ),
        Published(
            {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28},
            "Hoffmann et al., arXiv 2203.15556, appendix D.3, rounded as printed",
            "total, embedding included",
        ),
    ),
)

CHINCHILLA_TIED = Law(
    name="chinchilla_tied",
    predict=_chinchilla_tied,
    parameters=(_E, coefficient("A", "N", "alpha"), coefficient("B", "D", "alpha"), _ALPHA),
    columns=("N", "D"),
    design=grid(N=_SIZES, D=_TOKENS),
    example={"E": 1.76, "A": 120.0, "B": 240.0, "alpha": 0.261},
)

AVERAGE_PARAMETERS = Law(
    name="average_parameters",
    predict=_average_parameters,
    parameters=(_E, coefficient("A", "N_bar", "alpha"), coefficient("B", "D", "beta"), _ALPHA, _BETA),
    columns=("N_bar", "D"),
    design=grid(N_bar=_SIZES, D=_TOKENS),
    example={"E": 1.8172, "A": 477.8, "B": 2143.4, "alpha": 0.3473, "beta": 0.3672},
)

POWER_LAW = Law(
    name="power_law",
    predict=_power_law,
    parameters=(_E, coefficient("A", "x", "alpha"), _ALPHA),
    columns=("x",),
    design=grid(x=tuple(10.0**power for power in range(6, 15))),
    example={"E": 1.9, "A": 60.0, "alpha": 0.25},
)

RECTIFIED = Law(
    name="rectified",
    predict=_rectified,
    parameters=(
        _E,
        # With the power of x centred, K and B are measured in that power at the centre.
        Parameter("B", 0.1, 10.0, positive=True, centred=(("x", "beta", -1.0),)),
        Parameter("K", 0.03, 10.0, positive=True, centred=(("x", "beta", -1.0),)),
        _BETA,
    ),
    columns=("x",),
    design=grid(x=tuple(10.0 ** (power / 2) for power in range(8, 23))),
    example={"E": 1.2, "B": 6000.0, "K": 3000.0, "beta": 0.45},
)
