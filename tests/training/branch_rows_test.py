"""Drop damage and cold start from the excess of branches: a worked example with two seeds."""

import dataclasses
import math

import pytest

from sparsejax.config import ConfigError
from sparsejax.training.branch_rows import (
    CHANGES,
    FORMS,
    BranchRow,
    mean_curve,
    mean_of_first,
    peak,
    ratio,
    read_rows,
    rows_text,
    summarise,
)

# Excess after a rewiring, three steps: the drop costs 1, 1, 0 in every form; growth adds this.
COLD = {"smet": (0.0, 0.1, 0.2), "naive": (1.0, 2.0, 0.0), "smet_code": (0.5, 0.5, 0.5)}


def branches(seeds, rewire_step, scale=1.0, block="16x16"):
    rows = []
    for form in FORMS:
        for change in CHANGES:
            drop = [0.0 if change == "none" else scale * x for x in (1, 1, 0)]
            grown = [scale * x if change == "rewire" else 0.0 for x in COLD[form]]
            rows += [
                BranchRow(
                    "run", seeds, "smet", block, 0.25, 0.999, 0, 0, rewire_step, 0.3, form, change, step, 4 + d, d
                )
                for step, d in enumerate((a + b for a, b in zip(drop, grown, strict=True)), start=1)
            ]
    return rows


def test_one_rewiring():
    (summary,) = summarise(branches("0-0-0", 20), mean_of_first(2))
    assert (summary.seeds, summary.rewirings) == (1, 1)
    assert all(found.mean == 1.0 and found.error is None for found in summary.drop_damage.values())
    assert summary.cold_start["naive"].mean == pytest.approx(1.5)
    assert summary.cold_start["smet"].mean == pytest.approx(0.05)
    assert summary.smet_over_naive.mean == pytest.approx(0.05 / 1.5)
    (highest,) = summarise(branches("0-0-0", 20), peak)
    assert highest.cold_start["naive"].mean == pytest.approx(2.0)
    assert highest.cold_start["smet"].mean == pytest.approx(0.2)


def test_rewirings_are_averaged_within_a_seed_and_errors_are_over_seeds():
    rows = branches("0-0-0", 20, 1.0) + branches("0-0-0", 40, 3.0) + branches("1-1-1", 20, 4.0)
    (summary,) = summarise(rows, mean_of_first(2))
    assert (summary.seeds, summary.rewirings) == (2, 3)
    # Seed 0: (1 + 3) / 2 = 2, seed 1: 4. Mean 3, standard error sqrt(2) / sqrt(2) = 1.
    assert summary.drop_damage["smet"].mean == pytest.approx(3.0)
    assert summary.drop_damage["smet"].error == pytest.approx(1.0)
    assert summary.smet_over_naive.error == pytest.approx(0.0, abs=1e-12)  # the ratio is the same in both seeds
    assert mean_curve(rows, "naive", "rewire") == pytest.approx([2 * 8 / 3, 3 * 8 / 3, 0.0])


def test_settings_stay_apart():
    rows = branches("0-0-0", 20) + branches("0-0-0", 20, block="1x1")
    assert [summary.setting.block for summary in summarise(rows, peak)] == ["16x16", "1x1"]


def test_the_ratio_of_means_by_jackknife():
    found = ratio([1.0, 3.0], [2.0, 2.0])
    # Without seed 0 the ratio is 1.5, without seed 1 it is 0.5: sqrt(1/2 * (0.25 + 0.25)).
    assert (found.mean, found.error) == (1.0, pytest.approx(math.sqrt(0.25)))
    assert ratio([1.0], [4.0]).mean == 0.25
    assert ratio([1.0], [0.0]) is None
    assert ratio([1.0, 1.0], [2.0, -0.5]) is None, "without the first seed it divides by less than 0"


def test_a_missing_branch_is_named():
    rows = [row for row in branches("0-0-0", 20) if (row.form, row.change) != ("naive", "drop")]
    with pytest.raises(ValueError, match=r"rewiring 20: has no branch \('naive', 'drop'\)"):
        summarise(rows, peak)


def test_csv_round_trip(tmp_path):
    rows = branches("0-0-0", 20, 1 / 3)
    (tmp_path / "branch.csv").write_text(rows_text(rows))
    assert read_rows(tmp_path / "branch.csv") == rows
    assert dataclasses.astuple(rows[0])[0] == "run"
    (tmp_path / "runs.csv").write_text("point,seed\na,0\n")
    with pytest.raises(ConfigError, match="is no table of the branch test"):
        read_rows(tmp_path / "runs.csv")
