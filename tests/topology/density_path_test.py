"""Densities that fall: the path, and the staircase of slots beside it."""

import dataclasses

import pytest

from configs.base import get_config
from sparsejax.config import TopologyConfig, resolve
from sparsejax.topology.density_path import STAIRS, capacity_density_at, decays, density_at

STEPS = 400


def topology(**changes) -> TopologyConfig:
    config = get_config()
    config.model.update(hidden=32, mlp=64, heads=2, kv_heads=2, head_dim=16, layers=1)
    config.topology.update(drop="magnitude", grow="none", density_schedule="cubic", density=0.25, every=20)
    config.topology.update(density_start=1.0, stop_fraction=0.75)
    return dataclasses.replace(resolve(config.to_dict()).topology, **changes)


def test_worked_path():
    # Rewirings after 20, 40, ..., 300: the way is 300 steps.
    cubic, linear, cosine = (topology(density_schedule=shape) for shape in ("cubic", "linear", "cosine"))
    assert density_at(cubic, 0, STEPS) == 1.0
    assert density_at(cubic, 160, STEPS) == pytest.approx(0.25 + 0.75 * (140 / 300) ** 3)
    assert density_at(linear, 100, STEPS) == pytest.approx(0.75)
    assert density_at(cosine, 100, STEPS) == pytest.approx(0.25 + 0.75 * 0.75)
    for run in (cubic, linear, cosine):
        assert [density_at(run, step, STEPS) for step in (300, 301, 400)] == [0.25] * 3
        # Between rewirings nothing falls: a checkpoint of any step finds the slots of the rewiring before it.
        assert density_at(run, 100, STEPS) == density_at(run, 119, STEPS) > density_at(run, 120, STEPS)


def test_the_last_rewiring_reaches_the_end_wherever_it_falls():
    # 0.75 * 410 = 307.5 is no rewiring; the last one is after 300.
    assert density_at(topology(), 300, 410) == 0.25
    # With stop_fraction 1 the final step rewires nothing.
    assert density_at(topology(stop_fraction=1.0), 380, 400) == 0.25
    assert density_at(topology(stop_fraction=1.0), 360, 400) > 0.25


@pytest.mark.parametrize("shape", ["cubic", "linear", "cosine"])
def test_slots_come_down_at_most_eight_times_and_always_suffice(shape):
    run = topology(density_schedule=shape)
    path = [(density_at(run, step, STEPS), capacity_density_at(run, step, STEPS)) for step in range(0, STEPS, 20)]
    assert all(capacity >= density for density, capacity in path)
    capacities = [capacity for _, capacity in path]
    assert capacities == sorted(capacities, reverse=True)
    assert len(set(capacities)) <= STAIRS + 1
    assert path[-1] == (0.25, 0.25)


def test_a_constant_density_has_no_stairs():
    run = topology(density_schedule="constant", grow="random")
    assert not decays(run) and decays(topology())
    assert density_at(run, 0, STEPS) == capacity_density_at(run, 5, STEPS) == 0.25
