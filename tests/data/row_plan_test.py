"""Rows of batches: each as often as the budget says, however a run came to its length."""

import random
from collections import Counter

import pytest

from sparsejax.data.row_plan import RowPlan


def rows_of(plan: RowPlan, start: int, stop: int) -> list[int]:
    return [row for batch in range(start, stop) for row in range(*plan.span(batch))]


def plan(rows: int, batch: int, epochs: int = 0, steps: int = 0, filled: tuple[int, ...] = ()) -> RowPlan:
    return RowPlan(rows, batch, epochs=epochs, steps=steps, filled=filled)


def test_ten_rows_in_batches_of_eight() -> None:
    assert [plan(10, 8, 2, filled=(1,)).span(i) for i in range(4)] == [(0, 8), (8, 10), (10, 18), (18, 20)]
    assert [plan(10, 8, 2).span(i) for i in range(3)] == [(0, 8), (8, 16), (16, 20)]


@pytest.mark.parametrize("seed", range(60))
def test_a_run_made_longer_sees_every_row_once_an_epoch(seed: int) -> None:
    """Trained to an end, made longer, some number of times, and stopped anywhere in between."""
    draw = random.Random(seed)
    rows, batch = draw.randint(1, 30), draw.randint(1, 12)
    ends = sorted(draw.sample(range(1, 12), draw.randint(1, 4)))
    trained: list[int] = []
    step = 0
    for number, epochs in enumerate(ends):
        current = plan(rows, batch, epochs, filled=tuple(ends[:number]))
        # What was trained before is what this plan says of it.
        assert current.rows_of(step) == len(trained) == rows * (ends[number - 1] if number else 0)
        trained += rows_of(current, step, current.steps)
        step = current.steps
        assert all(1 <= stop - start <= batch for start, stop in map(current.span, range(current.steps)))
        assert Counter(row % rows for row in trained) == dict.fromkeys(range(rows), epochs)
        assert current.rows_of(step) == current.stream_rows == rows * epochs
    assert trained == list(range(rows * ends[-1]))


@pytest.mark.parametrize("seed", range(60))
def test_plans_share_the_batches_before_the_first_that_differs(seed: int) -> None:
    draw = random.Random(seed)
    rows, batch = draw.randint(1, 9), draw.randint(1, 5)
    plans = []
    for _ in range(2):
        if draw.randrange(3):
            *filled, epochs = sorted(draw.sample(range(1, 6), draw.randint(1, 3)))
            plans.append(plan(rows, batch, epochs, filled=tuple(filled)))
        else:
            plans.append(plan(rows, batch, steps=draw.randint(1, 20)))
    one, two = plans
    same = [one.span(i) == two.span(i) for i in range(min(one.steps, two.steps))]
    assert one.common_batches(two) == two.common_batches(one) == (same.index(False) if False in same else len(same))


@pytest.mark.parametrize(
    "settings",
    [{}, {"epochs": 1, "steps": 1}, *({"epochs": 3, "filled": each} for each in ((3,), (2, 1), (0,), (1, 1)))],
)
def test_lengths_that_cannot_be(settings: dict) -> None:
    with pytest.raises(ValueError, match=r"exactly one of epochs|were filled up after"):
        plan(10, 8, **settings)
