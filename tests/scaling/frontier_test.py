"""Optima of the published law as its paper prints them, against brute force, and flagged where they are none."""

import dataclasses

import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.scaling.frontier import Budget, best, best_at_density, check_budget, iso_flop, iso_loss, predicted
from sparsejax.scaling.laws.registry import LAWS

LAW = LAWS["sparse_repeated"]
VALUES = LAW.published[0].values


@pytest.mark.parametrize(
    ("density", "loss", "epochs"),
    [(1.0, 2.8277, 22.99), (0.5, 2.7827, 32.55), (0.25, 2.8041, 43.18), (0.125, 2.8390, 56.07)],
)
def test_free_epochs_at_each_density(density, loss, epochs):
    choice = best_at_density(LAW, VALUES, Budget(flops=9e20, unique_tokens=1.3e9), density)
    assert round(choice.loss, 4) == loss and choice.epochs == pytest.approx(epochs, abs=0.02) and choice.edges == ()
    assert 6 * choice.parameters * choice.tokens == pytest.approx(9e20)


def test_the_best_density_depends_on_flops_over_unique_tokens_squared():
    one = best(LAW, VALUES, Budget(1e20, 1.3e9))
    assert one.density == pytest.approx(0.445, abs=1e-3) and one.edges == ()
    assert best(LAW, VALUES, Budget(1e22, 1.3e10)).density == pytest.approx(one.density, abs=1e-4)
    assert best(LAW, VALUES, Budget(1e24, 1.3e9)).density == pytest.approx(0.5544, abs=1e-3)


def test_one_epoch_of_unlimited_text_is_the_closed_form():
    # N = G sqrt(C/6) with G = (A f/B)^(1/(2 alpha)).
    budget = Budget(flops=1e21, unique_tokens=1e14, parameters=(1e4, 1e13))
    f = 0.5 ** VALUES["eps"] + VALUES["c"] * 0.5 ** VALUES["mu"]
    G = (VALUES["A"] * f / VALUES["B"]) ** (1 / (2 * VALUES["alpha"]))
    choice = best_at_density(LAW, VALUES, budget, 0.5)
    assert choice.parameters == pytest.approx(G * np.sqrt(1e21 / 6), rel=1e-4)
    assert choice.epochs == 1 and choice.unique_tokens == choice.tokens < 1e14
    unlimited = best_at_density(LAW, VALUES, dataclasses.replace(budget, unique_tokens=np.inf), 0.5)
    assert unlimited == choice


def test_the_optimum_is_that_of_a_brute_force_grid():
    budget = Budget(3e20, 2e9)
    S, N = np.meshgrid(np.linspace(0.0625, 1, 200), np.geomspace(1e8, 1e11, 2000))
    loss = predicted(LAW, VALUES, N, budget.flops / (6 * N), budget.unique_tokens, S)
    found = best(LAW, VALUES, budget)
    assert found.loss <= loss.min() and found.loss == pytest.approx(loss.min(), abs=1e-6)
    at = np.unravel_index(loss.argmin(), loss.shape)
    assert found.density == pytest.approx(S[at], abs=0.006) and found.parameters == pytest.approx(N[at], rel=0.01)


def test_an_optimum_at_an_edge_says_so():
    few = best_at_density(LAW, VALUES, Budget(9e20, 1.3e9, epochs=10), 1.0)
    assert few.edges == ("10 epochs",) and few.epochs == pytest.approx(10)
    assert best(LAW, VALUES, Budget(9e20, 1.3e9, densities=(0.7, 1.0))).edges == ("density 0.7",)
    small = Budget(9e20, 1.3e9, most_parameters=lambda _: 1e9)
    assert best_at_density(LAW, VALUES, small, 0.5).edges == ("memory",)
    with pytest.raises(
        ConfigError, match=r"density 0\.5: nothing fits: fewest parameters are 1e\+06, and memory leave 1e\+05"
    ):
        best_at_density(LAW, VALUES, Budget(9e20, 1.3e9, most_parameters=lambda _: 1e5), 0.5)


def test_flops_that_no_run_may_use_stay_unspent():
    bounded = Budget(9e20, 1.3e9, parameters=(1e6, 1e9), tokens=(1e8, 1e10), epochs=4)
    choice = best_at_density(LAW, VALUES, bounded, 1.0)
    assert choice.parameters == pytest.approx(1e9) and choice.tokens == pytest.approx(5.2e9)
    assert set(choice.edges) == {"most parameters", "4 epochs"}
    assert best_at_density(LAW, VALUES, dataclasses.replace(bounded, epochs=9), 1.0).edges[-1] == "1e+10 tokens"
    # A part of the text is used where the fewest epochs ask for it.
    often = best_at_density(LAW, VALUES, dataclasses.replace(bounded, flops=1e18, least_epochs=3.0), 1.0)
    assert often.epochs == pytest.approx(3) and often.unique_tokens < 1.3e9


def test_zeros_that_are_multiplied_cost_tokens():
    free = best_at_density(LAW, VALUES, Budget(9e20, 1.3e9), 0.25)
    paid = best_at_density(LAW, VALUES, Budget(9e20, 1.3e9, overhead=np.reciprocal), 0.25)
    assert 6 * paid.parameters * paid.tokens == pytest.approx(9e20 * 0.25) and paid.loss > free.loss


def test_curves():
    budget, N = Budget(9e20, 1.3e9), np.geomspace(1e9, 1e10, 7)
    losses = iso_flop(LAW, VALUES, budget, 0.5, N)
    assert losses.argmin() not in (0, 6) and losses.min() >= best_at_density(LAW, VALUES, budget, 0.5).loss
    # Tokens that reach a loss give that loss; what saturates above it never does.
    tokens = iso_loss(LAW, VALUES, 2.9, 1.3e9, 0.5, N)
    np.testing.assert_allclose(predicted(LAW, VALUES, N, tokens, 1.3e9, np.full(7, 0.5)), 2.9, rtol=1e-9)
    assert np.all(np.isnan(iso_loss(LAW, VALUES, 2.5, 1.3e9, 0.5, N)))


@pytest.mark.parametrize(
    ("flops", "tokens", "match"),
    [
        (1e21, -1.0, "--unique-tokens=-1: must be above 0"),
        (float("nan"), 1e9, "--flops=nan: must be above 0"),
        (1e10, 1e9, r"--flops=1e\+10: nothing fits: 1e\+06 parameters and 100000 tokens, .* take 6e\+11"),
        (1e20, 10.0, r"--unique-tokens=10: 1000 epochs are fewer than 100000 tokens"),
    ],
)
def test_budgets_that_cannot_be_are_one_line(flops, tokens, match):
    with pytest.raises(ConfigError, match=match) as caught:
        check_budget(Budget(flops, tokens))
    assert "\n" not in str(caught.value)
