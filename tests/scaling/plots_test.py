"""Figures say what their axes are, mark optima, and mark those that are none differently."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from sparsejax.scaling import plots
from sparsejax.scaling.frontier import Budget
from sparsejax.scaling.saved_fit import published_default
from tests.scaling.synthetic import drawn

KNOWN = published_default()
BUDGET = Budget(flops=1e20, unique_tokens=1.3e9)


@pytest.mark.parametrize(
    ("draw", "arguments", "curves"),
    [
        (plots.plot_iso_flops, (BUDGET, (1e19, 1e20), 0.5), 2),
        (plots.plot_iso_losses, (1.3e9, (3.0, 2.9), 0.5), 2),
        (plots.plot_densities, (BUDGET, (1e19, 1e20, 1e21)), 3),
        (plots.plot_repetition, (3e8, 1.3e9, (1.0, 0.5)), 2),
    ],
)
def test_every_figure_is_labelled(draw, arguments, curves):
    axes = Figure().subplots()
    draw(axes, KNOWN.law, KNOWN.values, *arguments)
    assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title()
    assert len(axes.get_legend().get_texts()) == curves


def test_runs_beside_what_a_law_says_of_them():
    axes = Figure().subplots()
    columns = {"N": [4e8, 4e8, 2e8], "D": [1e9, 4e9, 2e9], "U": [1e9, 1e9, 1e9], "S": [1.0, 1.0, 0.5]}
    table = drawn(KNOWN.law, {name: np.array(column) for name, column in columns.items()}, values=KNOWN.values)
    plots.plot_fitted_epochs(axes, KNOWN.law, KNOWN.values, table)
    curve, marks, _, half = axes.lines
    assert marks.get_xdata().tolist() == [1.0, 4.0] and half.get_ydata().tolist() == [table.loss[2]]
    # Runs drawn without noise lie on their curve.
    np.testing.assert_allclose([curve.get_ydata()[0], curve.get_ydata()[-1]], table.loss[:2], rtol=1e-12)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1", "0.5"]


def test_an_edge_is_a_hollow_star():
    axes = Figure().subplots()
    limited = Budget(flops=1e20, unique_tokens=1.3e9, epochs=3)
    plots.plot_iso_flops(axes, KNOWN.law, KNOWN.values, limited, (1e20, 1e21), 1.0)
    plots.plot_iso_flops(axes, KNOWN.law, KNOWN.values, BUDGET, (1e20,), 1.0)
    stars = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "*"]
    assert stars == ["none", "none", plots.COLOURS[0]]
