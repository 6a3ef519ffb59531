"""Weak scaling on paper: the document's tables are computed again, and the formulas hold where they can be checked."""

from pathlib import Path

import pytest

from sparsejax.planning.weak_scaling import SUMS, WEIGHTS, printed, takeover_density, weak_scaling_row

DOCUMENT = Path(__file__).parents[2] / "docs" / "PERFORMANCE.md"


def row(density, mesh=(1, 16, 4), tokens=8192):
    return weak_scaling_row("7b", density, mesh, chip="v5p", tokens=tokens)


def test_the_document_has_these_tables():
    text = DOCUMENT.read_text(encoding="utf-8")
    for title, lines in printed().items():
        assert "\n".join(lines) in text, f"docs/PERFORMANCE.md: the table {title!r} is not what the command prints"


def test_one_row_by_hand():
    # 7b has 32 layers of 4 * 4096^2 + 3 * 4096 * 11264 weights: 11008 rounded up to 128 x 4. Gathered twice in
    # bfloat16 and scattered once in float32, of a quarter of them each fifteen sixteenths; sums: 5 of 8192 x 4096.
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11264)
    dense = row(1.0)
    assert dense.sent[WEIGHTS] == 8 * weights // 4 * 15 // 16
    assert dense.sent[SUMS] == 32 * 5 * 2 * 8192 * 4096 * 2 * 3 // 4
    assert dense.times.links[SUMS] == pytest.approx(dense.sent[SUMS] / 200e9)
    assert dense.state == 12 * (weights + 2 * 32000 * 4096) // 64


def test_state_and_weight_traffic_follow_density_and_sums_do_not():
    dense, sparse = row(1.0), row(0.25)
    assert sparse.sent[WEIGHTS] == pytest.approx(dense.sent[WEIGHTS] / 4, rel=1e-3)
    assert sparse.sent[SUMS] == dense.sent[SUMS]
    assert sparse.state < 0.3 * dense.state


def test_more_chips_change_only_what_replicas_sum():
    few, many = row(0.25), row(0.25, mesh=(16, 16, 4))
    assert few.times.compute == pytest.approx(many.times.compute) and few.state == many.state
    assert {axes: sent for axes, sent in many.sent.items() if axes != ("replica",)} == few.sent


def test_below_the_takeover_density_the_tensor_axis_takes_longer():
    at = takeover_density(row(1.0, tokens=4096))
    assert 0.5 < at < 0.8 and takeover_density(row(0.25, tokens=4096)) == pytest.approx(at, rel=1e-2)
    for density, tensor_longer in ((at * 0.9, True), (at * 1.1, False)):
        links = row(density, tokens=4096).times.links
        assert (links[SUMS] > links[WEIGHTS]) == tensor_longer
