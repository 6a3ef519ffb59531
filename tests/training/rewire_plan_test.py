"""What the host decides about a rewiring, in integers."""

import pytest

from sparsejax.training.rewire_plan import is_due, next_due, plan_at, rate_at
from tests.training.tiny import tiny_recipe


def test_when(tmp_path):
    # Twelve steps, every third; the last step never rewires.
    recipe = tiny_recipe(tmp_path)
    assert [step for step in range(13) if is_due(recipe, step)] == [3, 6, 9]
    assert [next_due(recipe, step) for step in (1, 3, 4, 9, 10)] == [3, 3, 6, 9, None]
    assert not is_due(tiny_recipe(tmp_path, topology_drop="none", topology_grow="none"), 3)


def test_counts_follow_the_rate(tmp_path):
    # 0.3 to 0.005 along a cosine over twelve steps; q has 8 of 16 blocks, up has 16 of 32.
    recipe = tiny_recipe(tmp_path)
    assert rate_at(recipe, 6) == pytest.approx((0.3 + 0.005) / 2)
    plan = plan_at(recipe, 6)
    assert {int(plan.drop[name]) for name in ("attention.q", "mlp.up")} == {1, 2}
    assert all(int(plan.grow[name]) == int(plan.drop[name]) for name in plan.drop)


def test_mix_and_temperature_come_along(tmp_path):
    recipe = tiny_recipe(tmp_path, topology_grow="mix", topology_drop="soft", topology_rate=0.5, topology_mix=0.5)
    first, last = plan_at(recipe, 3), plan_at(recipe, 12)
    assert all(int(first.by_gradient[name]) == int(first.grow[name]) // 2 for name in first.grow)
    assert float(first.temperature) == pytest.approx(1.5) and float(last.temperature) == 3.0


def test_a_falling_density_grows_nothing(tmp_path):
    recipe = tiny_recipe(tmp_path, topology_density_schedule="linear", topology_grow="none", topology_density_start=1.0)
    # 1, 5/6, 2/3, 1/2 of 16 places: rounded to 13 and 11 in between.
    assert [int(plan_at(recipe, step).drop["attention.q"]) for step in (3, 6, 9)] == [3, 2, 3]
    assert {int(count) for count in plan_at(recipe, 3).grow.values()} == {0}
    assert rate_at(recipe, 3) == 0.0
