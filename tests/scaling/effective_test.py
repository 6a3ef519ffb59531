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
    return VALUES["E"] + VALUES["A"] * N ** -VALUES["alpha"] + VALUES["B"] * TOKENS ** -VALUES["beta"]


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


def test_no_dense_model_reaches_a_loss_below_the_floor():
    floor = VALUES["E"] + VALUES["B"] * TOKENS ** -VALUES["beta"]
    found = effective_parameters(KNOWN, RESULT, "a", floor - 0.01, math.nan)
    assert found.parameters == math.inf and found.floor == pytest.approx(floor, abs=0.02)
    (warning,) = found.warnings
    assert warning.startswith("below the floor of the law")
    first, line, said = effective_lines(KNOWN, [found])
    assert "is reached by no dense model;" in line and said == f"WARNING a: {warning}" and "a test" in first


def test_what_lies_outside_the_fitted_runs_is_said():
    found = effective_parameters(KNOWN, RESULT, "a", loss_of(5e9), math.nan)
    assert found.warnings == ("parameters 5e+09 lie outside the fitted runs (1e+06 to 1e+09)",)
    published = effective_parameters(published_default(), RESULT, "a", 9.0, math.nan)
    assert any("tokens 4e+06 lie outside" in warning for warning in published.warnings)
    above = effective_parameters(KNOWN, RESULT, "a", loss_of(1e2), math.nan)
    assert above.parameters == 0 and above.warnings[0].startswith("above all that the law describes")


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
    with pytest.raises(ConfigError, match=r"^--fit: law power_law reads x; effective parameters need one of N, D"):
        effective_parameters(dataclasses.replace(KNOWN, law=LAWS["power_law"]), RESULT, "a", 3.0, math.nan)
