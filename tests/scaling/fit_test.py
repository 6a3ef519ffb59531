"""Fits: known answers come back, equal arguments give equal answers, and what data cannot say is refused or flagged."""

import dataclasses

import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.scaling.fit import PAPERS_DELTA, Prior, fit
from sparsejax.scaling.held_out import compare, held_out, splits
from sparsejax.scaling.intervals import Interval, bootstrap, diagnostics, percentiles, profile
from sparsejax.scaling.laws.law import grid
from sparsejax.scaling.laws.registry import LAWS
from sparsejax.scaling.refusals import check_identifiable
from sparsejax.scaling.solver import from_natural, to_natural
from tests.scaling.synthetic import drawn

CHINCHILLA = LAWS["chinchilla"]


def check_recovered(law):
    found = fit(law, drawn(law))
    for name, value in law.example.items():
        assert abs(found.values[name] / value - 1) < 1e-4, name
    assert found.delta == 1e-6


def test_noise_free_runs_give_the_coefficients_back():
    check_recovered(CHINCHILLA)


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.name)
def test_every_design_identifies_its_law(law):
    check_recovered(law)


@pytest.mark.slow
def test_a_held_exponent_is_found_where_it_is_freed():
    law = LAWS["sparse_overfitting"]
    values = {**law.example, "eta": 0.5}
    found = fit(law, drawn(law, values=values), free_held=("eta",))
    for name, value in values.items():
        assert abs(found.values[name] / value - 1) < 1e-4, name


def test_equal_arguments_give_equal_bits():
    table = drawn(CHINCHILLA, noise=0.01)
    one, two = fit(CHINCHILLA, table), fit(CHINCHILLA, table)
    assert one.values == two.values and one.minima == two.minima
    np.testing.assert_array_equal(bootstrap(one, 40).z, bootstrap(two, 40).z)
    # Delta follows the residuals: 1.345 of their scale, near that of the noise.
    assert 0.004 < one.delta < 0.03


def test_parameters_can_be_fixed_or_under_a_prior():
    table = drawn(CHINCHILLA, noise=0.01)
    fixed = fit(CHINCHILLA, table, fixed={"alpha": 0.3, "E": 1.8})
    assert fixed.values["alpha"] == pytest.approx(0.3, rel=1e-15) and fixed.free == ("A", "B", "beta")
    free, pulled = fit(CHINCHILLA, table), fit(CHINCHILLA, table, priors={"alpha": Prior(0.2, 1e-4)})
    assert abs(pulled.values["alpha"] - 0.2) < 0.01 < abs(free.values["alpha"] - 0.2)
    # One token budget says nothing of beta, unless it is known.
    one_budget = drawn(CHINCHILLA, grid(N=(2e7, 6e7, 2e8, 6e8, 2e9), D=(1e10,)))
    known = fit(CHINCHILLA, one_budget, fixed={"beta": 0.3672, "B": 2143.4})
    assert known.values["alpha"] == pytest.approx(0.3473, abs=1e-4)


def test_intervals_and_diagnostics():
    table = drawn(CHINCHILLA, noise=0.01)
    found = fit(CHINCHILLA, table)
    boot = bootstrap(found, 100)
    for name in ("E", "alpha"):
        interval, likelihood = boot.interval(name, 0.95), profile(found, name)
        assert interval.low < found.values[name] < interval.high
        assert likelihood.low < found.values[name] < likelihood.high
    told = diagnostics(found)
    assert told.condition < 100 and ("A", "alpha") in told.correlations and told.seed_scale is None
    repeated = dataclasses.replace(table, groups=np.arange(len(table)) // 2)
    assert diagnostics(dataclasses.replace(found, table=repeated)).seed_scale > 0


def test_what_covers_a_factor_of_four_is_not_identified():
    assert Interval(1.0, 3.9).identified and Interval(-3.9, -1.0).identified
    for low, high in ((1.0, 4.0), (1.0, np.inf), (-0.1, 0.1), (0.0, 1.0)):
        assert not Interval(low, high).identified


def test_ends_that_ran_away_are_infinite():
    samples = np.linspace(1.0, 2.0, 101)
    assert percentiles(samples, 1.5, 0.9) == Interval(pytest.approx(1.05), pytest.approx(1.95))
    for estimate, away in ((1.5, 1e6), (1e80, 1e90)):
        assert percentiles(np.where(samples > 1.5, away, samples), estimate, 0.9).high == np.inf


def test_runs_that_were_left_out():
    table = drawn(CHINCHILLA, noise=0.005)
    assert {name: len(masks) for name, masks in splits(table).items()} == {"largest": 1, "most epochs": 1, "5 folds": 5}
    found = fit(CHINCHILLA, table, delta=PAPERS_DELTA)
    errors = {one.split: one for one in held_out(found)}
    assert errors["largest"].runs == 5 and errors["5 folds"].runs == 25
    assert all(one.error < 0.05 and abs(one.bias) <= one.error for one in errors.values())
    with pytest.raises(ValueError, match="one delta only"):
        compare([found, dataclasses.replace(found, delta=1.0)])


def refused(table, match, law=CHINCHILLA, **keywords):
    with pytest.raises(ConfigError, match=match) as caught:
        fit(law, table, **keywords)
    assert "\n" not in str(caught.value)


def test_what_runs_to_infinity_stays_a_number():
    law = LAWS["data_constrained"]
    values = to_natural(law, np.full(7, 1e4))
    assert np.isfinite(values["R_N"]) and np.isfinite(law.loss({**law.example, "R_N": values["R_N"]}, law.design)).all()


def test_a_parameter_at_its_least_is_a_start():
    law = LAWS["sparse_repeated"]
    values = {**law.example, "mu": 0.2}
    z = from_natural(law, values)
    assert np.isfinite(z).all()
    assert dict(to_natural(law, z)) == pytest.approx(values, rel=1e-12)
    with pytest.raises(ValueError, match=r"mu=0\.1: must be above 0\.2"):
        from_natural(law, {**values, "mu": 0.1})


def test_what_data_cannot_say_is_refused():
    refused(drawn(CHINCHILLA, grid(N=(1e8,), D=(1e9, 3e9, 1e10, 3e10, 1e11, 3e11))), "1 different values of parameters")
    refused(drawn(CHINCHILLA, grid(N=(1e7, 1e8, 1e9), D=(1e9, 3e9))), "2 different values of tokens .* exponent beta")
    refused(drawn(CHINCHILLA, grid(N=(1e7, 1e8), D=(1e9, 3e9))), "4 different runs cannot identify 5 parameters")
    zeros = drawn(CHINCHILLA)
    refused(dataclasses.replace(zeros, columns={**zeros.columns, "N": np.zeros(25)}), "must be above 0 and finite")
    refused(dataclasses.replace(zeros, loss=-zeros.loss), "not above 0")
    refused(zeros, r"experts on .*: it reads X \(X\), which these runs do not state", LAWS["experts"])
    repeated = LAWS["data_constrained"]
    once = drawn(repeated, {**repeated.design, "D": repeated.design["U"]})
    refused(once, "no run depends on R_D .*no run repeats its tokens", repeated)
    sparse = LAWS["sparse_repeated"]
    dense = drawn(sparse, {**sparse.design, "S": np.ones(len(sparse.design["S"]))})
    refused(dense, "no run depends on mu, c, c11.*every run has S=1", sparse, fixed={"eps": 0.0})
    refused(dataclasses.replace(zeros, loss=np.full(25, 3.0)), "every run has the loss 3: equal losses")
    with pytest.raises(ValueError, match="law chinchilla: parameter gamma is unknown"):
        fit(CHINCHILLA, zeros, fixed={"gamma": 1.0})


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if "S" in law.columns])
def test_too_few_densities_are_refused(name):
    law = LAWS[name]
    S = law.design["S"]
    check_identifiable(law, drawn(law), law.held, set())
    for few, told in (
        (np.full(len(S), 0.5), "every run has S=0.5"),
        (np.where(S < 1, 0.5, 1), "there are 2 densities"),
    ):
        refused(drawn(law, {**law.design, "S": few}), rf"these runs cannot tell .* apart \({told}", law)


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if law.repetition])
def test_one_number_of_epochs_is_refused(name):
    law = LAWS[name]
    assert set(law.columns) >= {"D", "U"}
    table = drawn(law, {**law.design, "D": 4 * law.design["U"]})
    refused(table, rf"same number of epochs \(4\).*fix {', '.join(law.repetition[:1])}", law)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [("E", -1.0, "at least 0"), ("alpha", -0.3, "above 0"), ("alpha", np.inf, "finite"), ("A", np.nan, "finite")],
)
def test_values_that_no_parameter_keeps(name, value, match):
    refused(drawn(CHINCHILLA), rf"--fix={name}=.*{match}", fixed={name: value})


def test_a_law_without_its_floor_is_fitted():
    values = {**CHINCHILLA.example, "E": 0.0}
    found = fit(CHINCHILLA, drawn(CHINCHILLA, values=values), fixed={"E": 0.0})
    assert found.values == pytest.approx(values, rel=1e-4) and found.values["E"] == 0
    assert np.isfinite(bootstrap(found, 16).values["A"]).all()
    refused(drawn(CHINCHILLA), "every parameter of law chinchilla is fixed", fixed=CHINCHILLA.example)


@pytest.mark.slow
def test_ninety_per_cent_intervals_cover():
    rng = np.random.default_rng(0)
    N, D = 10 ** rng.uniform(7.3, 9, 60), 10 ** rng.uniform(8.7, 10.7, 60)
    inside = {name: 0 for name in CHINCHILLA.names}
    studies = 200
    for study in range(studies):
        table = drawn(CHINCHILLA, {"N": N, "D": D}, noise=0.004, seed=study)
        boot = bootstrap(fit(CHINCHILLA, table, starts=32), 128, seed=study)
        for name in inside:
            interval = boot.interval(name, 0.9)
            inside[name] += interval.low <= CHINCHILLA.example[name] <= interval.high
    for name, count in inside.items():
        assert 0.85 <= count / studies <= 0.97, (name, count)
