"""Drop-rate schedules and the steps that rewire."""

import itertools
import math

import pytest

from sparsejax.topology.schedules import drop_rate, interpolate, last_rewiring_step, rewires_after


@pytest.mark.parametrize(
    ("shape", "at_0", "at_quarter", "at_half", "at_end"),
    [
        ("cosine", 0.3, 0.005 + 0.295 * (1 + math.sqrt(0.5)) / 2, 0.1525, 0.005),
        ("linear", 0.3, 0.3 - 0.295 / 4, 0.1525, 0.005),
        ("constant", 0.3, 0.3, 0.3, 0.3),
        ("wsd", 0.3, 0.3, 0.3, 0.03),
    ],
)
def test_shapes_at_worked_points(shape, at_0, at_quarter, at_half, at_end):
    found = [interpolate(shape, 0.3, 0.005, step, 100) for step in (0, 25, 50, 100)]
    assert found == pytest.approx([at_0, at_quarter, at_half, at_end], abs=1e-12)


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant", "wsd"])
def test_shapes_never_rise_and_stay_at_their_end(shape):
    values = [interpolate(shape, 0.3, 0.005, step, 100) for step in range(101)]
    assert all(after <= before for before, after in itertools.pairwise(values))
    # The published cosine rises again after its end.
    assert [interpolate(shape, 0.3, 0.005, step, 100) for step in (101, 150, 200, 10_000)] == [values[-1]] * 4
    assert interpolate(shape, 0.3, 0.005, 5, 0) == values[-1]


def test_wsd_holds_nine_tenths_and_then_falls_in_a_line():
    found = [interpolate("wsd", 0.4, 0.0, step, 1000) for step in (900, 950, 1000)]
    assert found == pytest.approx([0.4, 0.4 * 0.55, 0.04])


def test_an_unknown_shape_is_one_line():
    with pytest.raises(ValueError, match=r"^schedule 'cubic': must be cosine, linear, constant or wsd$"):
        interpolate("cubic", 0.3, 0.005, 1, 10)


@pytest.mark.parametrize(
    ("every", "steps", "stop_fraction", "expected"),
    [
        (100, 1000, 0.75, [100, 200, 300, 400, 500, 600, 700]),
        (100, 1000, 0.7, [100, 200, 300, 400, 500, 600, 700]),  # the last step of the window still counts
        (250, 1000, 1.0, [250, 500, 750]),  # after step 1000 there is no step that would train the growth
        (100, 1001, 1.0, list(range(100, 1001, 100))),
        (100, 1000, 0.0, []),
        (100, 99, 1.0, []),
        (1, 4, 1.0, [1, 2, 3]),
        (1, 1, 1.0, []),
    ],
)
def test_steps_that_rewire(every, steps, stop_fraction, expected):
    assert [s for s in range(steps + 1) if rewires_after(s, every, steps, stop_fraction)] == expected
    assert last_rewiring_step(steps, stop_fraction) <= steps - 1


def test_the_drop_rate_ends_when_rewiring_stops():
    assert drop_rate("cosine", 0.3, 0.005, 0, 1000, 0.75) == pytest.approx(0.3)
    assert drop_rate("cosine", 0.3, 0.005, 375, 1000, 0.75) == pytest.approx(0.1525)
    assert drop_rate("cosine", 0.3, 0.005, 750, 1000, 0.75) == pytest.approx(0.005)
    assert drop_rate("cosine", 0.3, 0.005, 1000, 1000, 0.75) == pytest.approx(0.005)
