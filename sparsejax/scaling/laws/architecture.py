"""Laws with one more size than parameters and tokens: the vocabulary, or the number of experts."""

from __future__ import annotations

import math
from typing import Any

from sparsejax.scaling.laws.law import Law, Parameter, Published, coefficient, grid

_ALPHA, _BETA = Parameter("alpha", 0.1, 0.8), Parameter("beta", 0.1, 0.8)
_TENTH = 1 / math.log(10)


def _vocabulary(p: Any, x: Any, xp: Any) -> Any:
    """L = -E + A1/N^beta + A2/NV^alpha + B/D^beta.

    Tao et al., arXiv 2407.13623, approach 3. N without embedding and head, NV the parameters of those. L is the loss
    less that of the unigram distribution of the same tokenizer, so it is below 0 and comparable between tokenizers.
    """
    return -p.E + p.A1 * x.N**-p.beta + p.A2 * x.NV**-p.alpha + p.B * x.D**-p.beta


def _experts(p: Any, x: Any, xp: Any) -> Any:
    """log10 L = a log10 N + b log10 X' + c log10 N log10 X' + d, 1/X' = 1/(X - 1 + 1/(1/X0 - 1/X1)) + 1/X1.

    Clark et al., arXiv 2202.01169: N parameters of the dense model, X experts of which one is used.
    """
    saturated = 1 / (1 / (x.X - 1 + 1 / (1 / p.X0 - 1 / p.X1)) + 1 / p.X1)
    size, experts = xp.log10(x.N), xp.log10(saturated)
    return 10 ** (p.a * size + p.b * experts + p.c * size * experts + p.d)


VOCABULARY = Law(
    name="vocabulary",
    predict=_vocabulary,
    parameters=(
        Parameter("E", 2.0, 8.0, positive=True),
        coefficient("A1", "N", "beta"),
        coefficient("A2", "NV", "alpha"),
        coefficient("B", "D", "beta"),
        _ALPHA,
        _BETA,
    ),
    columns=("N", "NV", "D"),
    design=grid(N=(3e7, 1e8, 3e8, 1e9), NV=(2e6, 8e6, 3.2e7, 1.28e8), D=(5e8, 2e9, 8e9, 3.2e10)),
    example={"E": 5.5, "A1": 300.0, "A2": 60.0, "B": 900.0, "alpha": 0.5, "beta": 0.32},
    residual="linear",
)

EXPERTS = Law(
    name="experts",
    predict=_experts,
    parameters=(
        Parameter("a", -0.2, 0.0),
        Parameter("b", -0.3, 0.1, centred=(("N", "c", _TENTH),)),
        Parameter("c", -0.02, 0.04),
        # At the centre d is log10 of the loss: 0.2 to 0.7 is 1.6 to 5 nats.
        Parameter("d", 0.2, 0.7, centred=(("N", "a", _TENTH),)),
        Parameter("X0", 1.2, 5.0, positive=True),
        Parameter("X1", 50.0, 1000.0, positive=True),
    ),
    columns=("N", "X"),
    design=grid(N=(1.5e7, 5e7, 1.3e8, 3.7e8, 1.3e9), X=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)),
    example={"a": -0.083, "b": -0.118, "c": 0.0099, "d": 1.1136, "X0": 2.07, "X1": 238.7},
    published=(
        Published(
            {"a": -0.083, "b": -0.118, "c": 0.0099, "d": 1.1136, "X0": 2.07, "X1": 238.7},
            "least squares on 58 S-Base and dense runs published with arXiv 2202.01169; not the paper's own digits",
            "of the dense model, embedding included",
        ),
    ),
)
