"""The first updates of a regrown block, form by form, against numbers worked out by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.optim.forms import AdamRule, adam_step

STARTED = 1_000_000  # a global count at which b^count is 0


def rule(form: str, **changes: float) -> AdamRule:
    settings = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "density_exponent": 0.5, "ramp": 100}
    return AdamRule(form=form, **(settings | changes))


def directions(rule: AdamRule, updates: int, *, started: int, density: float = 1.0) -> list[float]:
    """Direction of one weight grown after ``started`` updates, under a constant gradient of 1."""
    m = v = jnp.zeros((1, 1, 1))
    seen = []
    for age in range(1, updates + 1):
        ages, count = jnp.full((1, 1, 1), age), jnp.int32(started + age)
        direction, m, v = adam_step(rule, jnp.ones((1, 1, 1)), m, v, count, ages, density)
        seen.append(float(direction[0, 0, 0]))
    return seen


def test_naive_jumps_after_regrowth():
    seen = directions(rule("naive"), 12, started=STARTED)
    assert seen[0] == pytest.approx(0.1 / math.sqrt(0.001), rel=1e-5)  # 3.16
    assert seen[11] == pytest.approx((1 - 0.9**12) / math.sqrt(1 - 0.999**12), rel=1e-5)  # 6.57
    assert 6.5 < seen[11] < 6.6


def test_smet_ramps_after_regrowth():
    seen = directions(rule("smet", ramp=10), 12, started=STARTED)
    np.testing.assert_allclose(seen, [min(t / 10, 1.0) for t in range(1, 13)], rtol=1e-5)


@pytest.mark.parametrize("form", ["smet", "naive"])
def test_blocks_from_the_start_have_no_ramp(form):
    np.testing.assert_allclose(directions(rule(form), 5, started=0), np.ones(5), rtol=1e-5)


def test_smet_code_starts_counting_at_two():
    (seen,) = directions(rule("smet_code"), 1, started=STARTED)
    first, second = 0.1 * 2 / 100 / (1 - 0.9**2), 0.001 / (1 - 0.999**2)
    assert seen == pytest.approx(first / math.sqrt(second), rel=1e-5)


def test_smet_code_factors_compound():
    # At t = W / 2 a plain ramp gives 0.50. Multiplying the stored moment instead has the fixed point
    # m = 0.5 (0.9 m + 0.1), so m = 0.0909, and the factors still grow a little from step to step.
    seen = directions(rule("smet_code"), 50, started=0)
    assert seen[49] == pytest.approx(0.09, abs=0.005)
    assert directions(rule("smet"), 50, started=STARTED)[49] == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("form", ["smet", "naive", "smet_code"])
def test_density_scales_the_direction_only(form):
    plain = directions(rule(form), 3, started=STARTED)
    scaled = directions(rule(form), 3, started=STARTED, density=0.25)
    np.testing.assert_allclose(scaled, 2 * np.array(plain), rtol=1e-6)
    steep = directions(rule(form, density_exponent=1.0), 3, started=STARTED, density=0.25)
    np.testing.assert_allclose(steep, 4 * np.array(plain), rtol=1e-6)


@pytest.mark.parametrize("form", ["smet", "naive", "smet_code"])
@pytest.mark.parametrize("decays", [{"b1": 0.0}, {"b2": 0.0}, {"b1": 0.0, "b2": 0.0}])
def test_decay_zero_keeps_no_history(form, decays):
    seen = directions(rule(form, ramp=1, **decays), 3, started=0)
    np.testing.assert_allclose(seen, np.ones(3), rtol=1e-5)


@pytest.mark.parametrize("form", ["smet", "naive", "smet_code"])
def test_free_slots_do_not_move(form):
    zeros = jnp.zeros((2, 3, 4))
    ages = jnp.array([1, 7]).reshape(2, 1, 1)
    for outcome in adam_step(rule(form), zeros, zeros, zeros, jnp.int32(7), ages, 0.1):
        assert not np.any(np.asarray(outcome))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b1": 1.0}, r"b1=1: must be in \[0, 1\)"),
        ({"b2": -0.1}, r"b2=-0.1: must be in \[0, 1\)"),
        ({"ramp": 0}, r"ramp=0: must be in \[1, 2147483647\]"),
        ({"form": "adam"}, "form='adam': not one of smet, naive, smet_code"),
    ],
)
def test_illegal_hyperparameters_are_one_line(changes, message):
    settings = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "form": "smet", "density_exponent": 0.5, "ramp": 100}
    with pytest.raises(ValueError, match=f"^{message}$"):
        AdamRule(**(settings | changes))
