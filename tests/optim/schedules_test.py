"""Learning-rate shapes: end points, the warm-up, and what they are in between."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.config import ConfigError, OptimConfig
from sparsejax.optim.schedules import learning_rate

BASE = OptimConfig(
    form="smet",
    lr=0.5,
    schedule="cosine",
    warmup_fraction=0.1,
    min_ratio=0.1,
    decay_fraction=0.1,
    restarts=1,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    density_exponent=0.5,
    vocabulary_lr_ratio=1.0,
    ramp=100,
    weight_decay=0.0,
    clip=1.0,
    moment_dtype="float32",
    ema_decay=0.0,
    galore_rank=4,
    galore_every=10,
)
SHAPES = ["cosine", "linear", "wsd", "constant", "cosine_restarts"]


def rates(steps: int, *, beyond: int = 0, **changes: float | str) -> np.ndarray:
    """The rate of every step of a run, and of ``beyond`` steps after its end."""
    rate = learning_rate(dataclasses.replace(BASE, **changes), steps)
    return np.asarray(jax.jit(jax.vmap(rate))(jnp.arange(steps + beyond)))


def test_worked_example():
    # 11 steps, no warm-up, 1 down to 0.1: step 0 at the peak, step 5 half way, step 10 at the end.
    seen = rates(11, lr=1.0, schedule="linear", warmup_fraction=0)
    np.testing.assert_allclose(seen[[0, 5, 10]], [1, 0.55, 0.1], rtol=1e-6)
    # 12 steps, a quarter of them warm-up: 1/3, 2/3, peak, then 9 equal steps down.
    seen = rates(12, lr=1.0, schedule="linear", warmup_fraction=0.25)
    np.testing.assert_allclose(seen[:4], [1 / 3, 2 / 3, 1.0, 0.9], rtol=1e-6)
    np.testing.assert_allclose(seen[-2:], [0.2, 0.1], rtol=1e-6)


@pytest.mark.parametrize("schedule", SHAPES)
@pytest.mark.parametrize("warmup", [0.0, 0.001, 0.1])
def test_end_points(schedule, warmup):
    seen = rates(200, beyond=50, schedule=schedule, warmup_fraction=warmup, restarts=3)
    end = 0.5 if schedule == "constant" else 0.05
    assert seen[0] == pytest.approx(0.5 / 20 if warmup == 0.1 else 0.5, rel=1e-6)
    assert seen.max() == pytest.approx(0.5, rel=1e-6)
    np.testing.assert_allclose(seen[199:], end, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_warm_up_rises_and_decay_falls(schedule):
    seen = rates(100, schedule=schedule)
    assert np.all(np.diff(seen[:10]) > 0)
    assert np.all(np.diff(seen[9:]) <= 0)


def test_cosine_follows_its_equation():
    seen = rates(101, lr=1.0, warmup_fraction=0)
    np.testing.assert_allclose(seen, [0.1 + 0.9 * (1 + math.cos(math.pi * k / 100)) / 2 for k in range(101)], rtol=1e-5)


def test_wsd_holds_then_falls_over_the_last_steps():
    seen = rates(101, lr=1.0, schedule="wsd", warmup_fraction=0, decay_fraction=0.2)
    np.testing.assert_allclose(seen[:81], 1.0)
    np.testing.assert_allclose(seen[80:], np.linspace(1.0, 0.1, 21), rtol=1e-6)


def test_wsd_without_decay_stays_and_a_long_decay_starts_at_the_peak():
    np.testing.assert_allclose(rates(50, schedule="wsd", warmup_fraction=0, decay_fraction=0), 0.5)
    long, linear = (rates(50, schedule=name, decay_fraction=1.0) for name in ("wsd", "linear"))
    np.testing.assert_allclose(long, linear, rtol=1e-6)


def test_restarts_are_equal_cycles_from_peak_to_end():
    # 12 steps in 3 cycles: each is a cosine over 4 steps, the first of a cycle at the peak, its last at the end.
    seen = rates(12, lr=1.0, schedule="cosine_restarts", warmup_fraction=0, restarts=3).reshape(3, 4)
    np.testing.assert_allclose(seen, np.tile(rates(4, lr=1.0, warmup_fraction=0), (3, 1)), rtol=1e-5)


def test_uneven_restarts_still_end_at_the_end_value():
    seen = rates(100, lr=1.0, schedule="cosine_restarts", restarts=7)
    falls = np.flatnonzero(np.isclose(seen, 0.1, rtol=1e-5) & (np.arange(100) > 9))
    assert len(falls) == 7
    assert falls[-1] == 99
    np.testing.assert_allclose(seen[falls[:-1] + 1], 1.0, rtol=1e-6)


@pytest.mark.parametrize("schedule", SHAPES)
def test_host_steps_and_traced_steps_agree(schedule):
    rate = learning_rate(dataclasses.replace(BASE, schedule=schedule), 30)
    on_host = [float(rate(step)) for step in range(30)]
    np.testing.assert_allclose(on_host, rates(30, schedule=schedule), rtol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_a_run_of_one_step_uses_the_peak(schedule):
    assert float(learning_rate(dataclasses.replace(BASE, schedule=schedule), 1)(0)) == 0.5


def test_too_many_restarts_is_one_line():
    config = dataclasses.replace(BASE, schedule="cosine_restarts", restarts=6, warmup_fraction=0)
    with pytest.raises(ConfigError, match=r"^optim.restarts=6: the 11 steps .* hold at most 5 cycles; .*$"):
        learning_rate(config, 11)
