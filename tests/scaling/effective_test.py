"""Effective dense parameters: the law solved for N, and said plainly where it has no answer."""

import dataclasses
import math

import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.scaling.effective import dense_size, effective_lines, effective_parameters
from sparsejax.scaling.frontier import predicted
from sparsejax.scaling.laws.dense import CHINCHILLA
from sparsejax.scaling.laws.registry import LAWS
from sparsejax.scaling.saved_fit import SavedFit, published_default
from tests.scaling.runs_test import RESULT

VALUES = {"E": 1.5, "A": 400.0, "B": 1000.0, "alpha": 0.3, "beta": 0.35}
KNOWN = SavedFit(CHINCHILLA, VALUES, {}, 0.01, "the fitted runs", {"N": (1e6, 1e9)}, "active", "a test")
TOKENS = float(RESULT.total_tokens)


def loss_of(N):
    return (
        VALUES["E"]
        - (0.01 if math.inf == N else 0.0)
        + VALUES["A"] * N ** -VALUES["alpha"]
        + VALUES["B"] * TOKENS ** -VALUES["beta"]
    )


def solved(loss):
    return (VALUES["A"] / (loss - VALUES["E"] - VALUES["B"] * TOKENS ** -VALUES["beta"])) ** (1 / VALUES["alpha"])


def test_the_size_is_that_of_the_equation_solved_by_hand():
    found = effective_parameters(KNOWN, RESULT, "a", loss_of(5e7), math.nan)
    assert found.parameters == pytest.approx(5e7, rel=1e-9)
    assert found.per_parameter == pytest.approx(5e7 / RESULT.active_parameters)
    assert (found.own, found.twin) == (RESULT.active_parameters, RESULT.total_parameters)
    # The law's own error of 1 % of the loss, two-sided 90 %.
    assert found.low == pytest.approx(solved(loss_of(5e7) * math.exp(0.01645)), rel=1e-3)
    assert found.high == pytest.approx(solved(loss_of(5e7) * math.exp(-0.01645)), rel=1e-3)
    assert found.warnings == ()
    wider = effective_parameters(KNOWN, RESULT, "a", loss_of(5e7), 0.1)
    assert wider.low < found.low and wider.high > found.high


@pytest.mark.parametrize("name", ["sparse_repeated", "data_constrained", "overfitting"])
def test_laws_of_repeated_text_are_solved_too(name):
    law = LAWS[name]
    D, U, N = 4e9, 1e9, 2e8
    loss = float(predicted(law, law.example, np.array([N]), np.array([D]), U, np.array([1.0]))[0])
    assert dense_size(law, law.example, loss, D, U)[0] == pytest.approx(N, rel=1e-6)


@pytest.mark.parametrize("N", [5e9, math.inf])
def test_beyond_the_fitted_sizes_the_edge_is_the_answer(N):
    found = effective_parameters(KNOWN, RESULT, "a", loss_of(N), math.nan)
    assert found.parameters == math.inf and found.floor == pytest.approx(loss_of(1e9), rel=1e-6)
    (warning,) = found.warnings
    assert warning.startswith("below what the law describes: by it no dense model of up to 1e+09 parameters")
    first, line, said = effective_lines(KNOWN, [found])
    assert "is reached by no dense model of 1e+09 parameters or fewer;" in line and "worth" not in line
    assert said == f"WARNING a: {warning}" and "a test" in first


def test_below_the_fitted_sizes_the_edge_is_the_answer():
    found = effective_parameters(KNOWN, RESULT, "a", loss_of(1e5), math.nan)
    assert found.parameters == 0 and found.warnings[0].startswith(
        "above what the law describes: a dense model of 1e+06"
    )
    assert "a dense model of fewer than 1e+06 parameters" in effective_lines(KNOWN, [found])[1]


def test_an_interval_that_leaves_the_fitted_sizes_says_so():
    high = effective_parameters(KNOWN, RESULT, "a", loss_of(9.9e8), math.nan)
    assert high.high == math.inf and "to more than 1e+09)" in effective_lines(KNOWN, [high])[1]
    low = effective_parameters(KNOWN, RESULT, "a", loss_of(1.01e6), math.nan)
    assert low.low == 0 and "(90 %: fewer than 1e+06 to " in effective_lines(KNOWN, [low])[1]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"ranges": {"N": (1e6, 1e9), "D": (1e8, 1e10)}}, "tokens 4e+06 (fitted: 1e+08 to 1e+10)"),
        ({"ranges": {"N": (1e6, 1e9), "U": (1e8, 1e10)}}, "unique tokens 1e+06 (fitted: 1e+08 to 1e+10)"),
        ({"ranges": {"N": (1e6, 1e9), "epochs": (1.0, 2.0)}}, "epochs 4 (fitted: 1 to 2)"),
        ({"ranges": {"N": (1e6, 1e9), "S": (0.25, 0.5)}}, "the fitted runs were all sparse"),
        ({"tokenizer": "c" * 64}, "its tokenizer is not that of the fitted runs"),
        ({"text": "c" * 64}, "its data set is not that of the fitted runs"),
    ],
)
def test_a_run_unlike_the_fitted_ones_has_no_number(values, told):
    found = effective_parameters(dataclasses.replace(KNOWN, **values), RESULT, "a", loss_of(5e7), math.nan)
    assert all(math.isnan(value) for value in (found.parameters, found.low, found.high, found.floor))
    assert len(found.warnings) == 1 and told in found.warnings[0]
    assert "no effective parameters" in effective_lines(KNOWN, [found])[1]
    alike = dataclasses.replace(KNOWN, tokenizer=RESULT.tokenizer_digest, text=RESULT.data_digest)
    assert effective_parameters(alike, RESULT, "a", loss_of(5e7), math.nan).warnings == ()


def test_the_published_law_says_nothing_of_tiny_runs():
    published = effective_parameters(published_default(), RESULT, "a", 9.0, math.nan)
    assert math.isnan(published.parameters) and "tokens 4e+06 (fitted: 2e+08" in published.warnings[0]


def test_refits_widen_the_interval():
    rng = np.random.default_rng(0)
    samples = {name: np.full(100, value) for name, value in VALUES.items()}
    samples["A"] = VALUES["A"] * np.exp(0.1 * rng.normal(size=100))
    known = dataclasses.replace(KNOWN, samples=samples)
    plain = effective_parameters(KNOWN, RESULT, "a", loss_of(5e7), math.nan)
    found = effective_parameters(known, RESULT, "a", loss_of(5e7), math.nan)
    # A factor on A is the same factor to the power 1 / alpha on N.
    ends = 5e7 * np.quantile(samples["A"] / VALUES["A"], [0.05, 0.95], method="closest_observation") ** (1 / 0.3)
    for end, noise, found_end in zip(ends, (plain.low, plain.high), (found.low, found.high), strict=True):
        wanted = math.hypot(math.log(end / 5e7), math.log(noise / 5e7))
        assert abs(math.log(found_end / 5e7)) == pytest.approx(wanted, rel=1e-6)


def test_counts_follow_the_convention_of_the_fit():
    known = dataclasses.replace(KNOWN, convention="active_non_embedding")
    found = effective_parameters(known, RESULT, "a", loss_of(5e7), math.nan)
    embedding = RESULT.active_parameters - RESULT.non_embedding_parameters
    assert (found.own, found.twin) == (RESULT.non_embedding_parameters, RESULT.total_parameters - embedding)


def test_a_law_that_reads_something_else_is_refused():
    with pytest.raises(ConfigError, match=r"^--fit: law power_law reads x; this needs a law of N, D, U and density"):
        effective_parameters(dataclasses.replace(KNOWN, law=LAWS["power_law"]), RESULT, "a", 3.0, math.nan)


def test_a_law_of_linear_residuals_has_errors_of_losses():
    known = dataclasses.replace(KNOWN, law=dataclasses.replace(CHINCHILLA, residual="linear"))
    found = effective_parameters(known, RESULT, "a", loss_of(5e7), 0.005)
    spread = 1.645 * math.hypot(0.01, 0.005)
    assert found.low == pytest.approx(solved(loss_of(5e7) + spread), rel=1e-3)
    assert found.high == pytest.approx(solved(loss_of(5e7) - spread), rel=1e-3)
