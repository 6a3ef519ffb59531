"""Published fits, made again: on the public tables where SPARSEJAX_SCALING_DATA names them, else on drawn ones.

A drawn table cannot have the published answer; there the fit must be at least as good as the values it was drawn from.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest

from sparsejax.scaling.fit import PAPERS_DELTA, fit, huber_sum
from sparsejax.scaling.intervals import Interval, bootstrap, profile
from sparsejax.scaling.laws.law import grid
from sparsejax.scaling.laws.registry import LAWS
from sparsejax.scaling.rows import table_of
from sparsejax.scaling.stages import SLACK, SPARSE_REPEATED_STAGES, fit_stages, loosened
from sparsejax.scaling.tables import read_rows
from tests.scaling.synthetic import FOLDER, drawn, public

CHINCHILLA = LAWS["chinchilla"]


@functools.cache
def chinchilla():
    table, bar = public("chinchilla_fig4.csv", CHINCHILLA, None, 0.005)
    return fit(CHINCHILLA, table, delta=PAPERS_DELTA), bar or 0.00101827403


def test_chinchilla():
    found, bar = chinchilla()
    assert found.objective <= bar and found.agreement >= 0.9
    assert found.minima[0].objective == found.objective and found.r2 > 0.98
    if FOLDER:
        assert abs(found.values["alpha"] - 0.3473) < 1e-3 and abs(found.values["beta"] - 0.3672) < 1e-3
        assert np.isclose(huber_sum(CHINCHILLA, CHINCHILLA.published[0].values, found.table, 1e-3), 0.00101874581614)


def test_chinchilla_intervals():
    found, _ = chinchilla()
    boot = bootstrap(found, 1000 if FOLDER else 200)
    for name in found.free:
        interval = boot.interval(name, 0.95)
        assert interval.low < found.values[name] < interval.high
        assert boot.interval(name, 0.95, term=name in ("A", "B")).identified
    if FOLDER:
        # Besiroglu et al., arXiv 2404.10102, table 1: 4,000 case bootstraps.
        published = {"E": (1.769, 1.871), "A": (285.214, 743.626), "B": (1042.357, 5810.344)}
        published |= {"alpha": (0.317, 0.373), "beta": (0.331, 0.415)}
        for name, ends in published.items():
            interval = boot.interval(name, 0.95)
            np.testing.assert_allclose([interval.low, interval.high], ends, rtol=0.05)


@pytest.mark.slow
def test_repeated_data_has_two_minima_and_identifies_neither_limit():
    law = LAWS["data_constrained"]
    values = dict(law.published[0].values)
    # One unique budget, few repetitions and models that are hardly too large: limits cannot follow from these.
    design = grid(N=(1e8, 4e8, 1.6e9), D=(4e9, 8e9, 1.6e10), U=(4e9,))
    table, bar = public("repeated_c4.csv", law, design, 0.03, values)
    kept = {name: value for name, value in values.items() if name not in ("R_N", "R_D")}
    found = fit(law, table, fixed=kept, delta=PAPERS_DELTA)
    boot = bootstrap(found, 200)
    for name in ("R_N", "R_D"):
        assert not (boot.interval(name, 0.95).identified and profile(found, name).identified)
    assert found.objective <= (bar or 0.0158046625)
    if FOLDER:
        objectives = [one.objective for one in found.minima]
        assert round(objectives[0], 10) == 0.0158046625
        assert any(
            abs(one.values["R_D"] - 15.37176) < 1e-3 and abs(one.objective - 0.0158259321) < 1e-9
            for one in found.minima
        )
        assert abs(huber_sum(law, values, table, PAPERS_DELTA) - 0.015825935258) < 1e-11
        joint = fit(law, table, delta=PAPERS_DELTA)
        # 0.00655 and below, as reported elsewhere, is 1 - exp(-r/R) rounded at R near 1e16: the law itself stops here.
        assert joint.objective <= 0.0065659 and joint.values["R_N"] > 1e6


@pytest.mark.slow
def test_three_step_counts_do_not_identify_the_data_exponent():
    law = LAWS["sparsely_connected"]
    design = grid(N=(1e6, 4e6, 1.6e7, 6.4e7), D=(2.5e5, 5e5, 1e6), S=(1.0, 0.5, 0.25, 0.125))
    table, bar = public("sparse_t5_c4.csv", law, design, 0.004)
    found = fit(law, table, delta=PAPERS_DELTA)
    assert found.objective <= (bar or 48 * 4.8802e-6)
    one, other = bootstrap(found, 200).interval("beta", 0.95), profile(found, "beta")
    assert not Interval(min(one.low, other.low), max(one.high, other.high)).identified


@pytest.mark.slow
def test_experts():
    law = LAWS["experts"]
    table, _ = public("routed_lm_final.csv", law, None, 0.007)
    # Least squares: delta above every residual.
    found = fit(law, table, delta=0.5)
    assert found.agreement > 0.3 and found.scale < 0.015
    if FOLDER:
        assert len(table) == 58
        for name, value in law.published[0].values.items():
            assert abs(found.values[name] / value - 1) < 0.005


@pytest.mark.slow
def test_a_form_that_can_rise_fits_runs_that_overfit():
    rising, saturating = LAWS["overfitting"], LAWS["data_constrained"]
    if FOLDER:
        rows = [
            row for row in read_rows(Path(FOLDER, "repeated_c4.csv"), everything=True) if not row.group.endswith(" 1")
        ]
        table = table_of(rows, "repeated_c4.csv, not deduplicated")
        assert len(table) == 296
    else:
        table = drawn(rising, noise=0.01)
    one, other = fit(rising, table, delta=PAPERS_DELTA), fit(saturating, table, delta=PAPERS_DELTA)
    assert one.objective < 0.8 * other.objective and one.r2 > other.r2
    if FOLDER:
        assert one.objective <= 0.01557 and one.r2 > 0.77


@pytest.mark.slow
def test_the_staged_fit_of_the_sparse_law():
    law = LAWS["sparse_repeated"]
    # Runs of one epoch are drawn from unlimited text, as the staged fit takes them.
    once = law.design["D"] <= law.design["U"]
    unlimited = {**law.design, "U": np.where(once, 1e30, law.design["U"])}
    table, _ = public("synthetic_sparse_repeated.csv", law, unlimited, 0.002)
    if not FOLDER:
        table = dataclasses.replace(table, columns={**table.columns, "U": law.design["U"]})
    fits = fit_stages(law, table, SPARSE_REPEATED_STAGES)
    assert [one.law.name for one in fits] == 4 * [law.name]
    loose = loosened(law, table, SPARSE_REPEATED_STAGES, fits)
    if FOLDER:
        # Where the published procedure ends. Its second stage stops a little short of its minimum; from the minimum
        # itself, with the parameters frozen, the last stage ends 0.1 % above.
        for found, bar in zip(loose.objectives, (1.31044e-4, 8.06895e-4, 1.97083e-4, 7.56151e-4), strict=True):
            assert found <= bar * (1 + 1e-5)
    assert loose.objectives[0] == fits[0].objective
    for found, frozen in zip(loose.objectives[1:3], fits[1:3], strict=True):
        assert found <= frozen.objective * (1 + 1.01 * SLACK)
    assert loose.objectives[3] < fits[3].objective
    last = loose.values
    assert abs(last["alpha"] - 0.3268) < 0.03 and abs(last["E"] - 2.348) < 0.15


def test_a_stand_in_is_drawn_from_its_law():
    table = drawn(CHINCHILLA)
    np.testing.assert_allclose(table.loss, CHINCHILLA.loss(CHINCHILLA.example, CHINCHILLA.design))
