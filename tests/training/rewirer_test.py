"""The loop's side of the topology, on a run of twelve steps: fading, scores, and what is logged."""

import numpy as np
import pytest

from sparsejax.training.loop import train
from sparsejax.training.metrics import read_rows
from tests.training.tiny import quiet_console, tiny_run


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A run with every extra at once: fading blocks, a growth rule with a memory."""
    directory = tmp_path_factory.mktemp("rewirer")
    changes = {"topology_grow": "gradient_sum", "topology_score_steps": 2, "topology_fade_steps": 2}
    changes |= {"topology_rules": ("attention.*=1", "mlp.(gate|up)=1")}
    run = tiny_run(directory, **changes)
    outcome = train(run, directory / "run", extend=False, console=quiet_console())
    assert outcome.exit_code == 0
    return read_rows(directory / "run" / "metrics.jsonl")


def test_a_row_for_every_rewiring_and_one_for_the_step_after(rows):
    assert [row["step"] for row in rows if row["kind"] == "rewire"] == [3, 6, 9]
    assert [row["step"] for row in rows if row["kind"] == "regrowth"] == [4, 7, 10]


def test_what_is_logged_about_a_rewiring(rows):
    first, second, third = (row for row in rows if row["kind"] == "rewire")
    assert "topology/survival/mlp.down" not in first
    for row in (second, third):
        assert 0 <= row["topology/survival/mlp.down"] <= 1
        assert row["topology/explored/mlp.down"] >= first["topology/explored/mlp.down"] > 0.5
        assert row["topology/initial_overlap/mlp.down"] <= first["topology/initial_overlap/mlp.down"] < 1
        assert np.isfinite(row["topology/loss_after"])


def test_faded_blocks_are_gone_before_the_rewiring(rows):
    # The last factor is 0, so dropping them changes nothing, and regrown ones start at 0 too.
    for row in rows:
        if row["kind"] == "rewire":
            assert row["topology/loss_after"] == pytest.approx(row["topology/loss_before"], rel=1e-6)


def test_the_first_update_of_regrown_blocks_is_logged(rows):
    # SMET's ramp of 4: a quarter of the rate in the first update.
    ratios = [row["topology/regrown_update"] for row in rows if row["kind"] == "regrowth"]
    assert all(0.05 < ratio < 1.0 for ratio in ratios)
