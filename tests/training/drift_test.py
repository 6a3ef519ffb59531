"""The report on drift and masks: worked examples, then a tiny run that trained and one that did not."""

import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.training.drift import (
    StackedWeight,
    agreement,
    drift,
    mask_distance,
    masks,
    overlap,
    overlap_by_chance,
    rank_share,
    unmoved,
)
from sparsejax.training.programs import init_state
from tests.training.tiny import tiny_recipe

# One layer of 2 x 3 blocks.   start # # .    end # . .
#                                     . . #        # . #
START = np.array([[[1, 1, 0], [0, 0, 1]]], bool)
END = np.array([[[1, 0, 0], [1, 0, 1]]], bool)


def test_masks_of_the_drawing():
    assert overlap(END, START) == pytest.approx(2 / 3)
    assert overlap_by_chance(START) == pytest.approx(3 / 6)
    assert mask_distance(END, START) == 2  # one place left, one came
    assert mask_distance(START, START) == 0


def test_unmoved_counts_the_weights_that_ever_existed():
    # Blocks of 1 x 2, so the weight is 2 x 6. Four blocks were ever active: eight weights.
    start, end = np.zeros((1, 2, 6), np.float32), np.zeros((1, 2, 6), np.float32)
    start[0] = [[1, 2, 3, 4, 0, 0], [0, 0, 0, 0, 5, 6]]
    # Moved: 2 -> 2.5; the dropped block (two weights); one of the two grown ones, whose partner is still 0.
    end[0] = [[1, 2.5, 0, 0, 0, 0], [0, 7, 0, 0, 5, 6.001]]
    before, after = StackedWeight(start, START), StackedWeight(end, END)
    assert unmoved(before, after, tolerance=0.01) == pytest.approx(4 / 8)
    assert unmoved(before, after, tolerance=1e-4) == pytest.approx(3 / 8)
    assert unmoved(before, before, tolerance=1e-9) == 1.0


def test_rank_of_an_outer_product_is_one():
    outer_KN = np.outer([1.0, 2, 3, 4], [1.0, -1, 2, 0, 5]).astype(np.float32)
    full_KN = np.eye(4, 5, dtype=np.float32)
    assert rank_share(outer_KN[None]) == pytest.approx(1 / 4)
    assert rank_share(np.stack([outer_KN, full_KN])) == pytest.approx((1 + 4) / 2 / 4)
    assert rank_share(np.zeros((1, 4, 5), np.float32)) == 0.0
    assert np.isnan(rank_share(np.full((1, 4, 5), np.nan, np.float32)))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return tiny_recipe(tmp_path_factory.mktemp("drift"))


def test_a_run_at_its_start_has_not_moved(recipe):
    state = init_state(recipe)
    rows = drift("a", recipe, state.params, state.topology, tolerance=1e-9)
    found = {(row.weight, row.measure): row.value for row in rows}
    assert len(found) == 7 * 4
    for name in recipe.weights:
        assert found[name, "unmoved"] == found[name, "initial_overlap"] == 1.0
        assert found[name, "mask_distance"] == found[name, "rank_share"] == 0.0


def test_other_seeds_agree_as_chance_does_and_equal_ones_fully(recipe, tmp_path):
    own = masks(recipe, init_state(recipe).topology)
    other = tiny_recipe(tmp_path, seeds_topology=1)
    theirs = masks(other, init_state(other).topology)
    rows = agreement([("a", own), ("b", own), ("c", theirs)])
    assert [(row.run, row.other) for row in rows[:: 2 * 7]] == [("a", "b"), ("a", "c"), ("b", "c")]
    by_pair = {(row.run, row.other, row.weight, row.measure): row.value for row in rows}
    chance = [by_pair["a", "c", name, "overlap_by_chance"] for name in own]
    assert chance == [0.5] * 7
    assert all(by_pair["a", "b", name, "overlap"] == 1.0 for name in own)
    # 320 places in all, half of them active: the mean overlap is 0.5 give or take 0.03.
    assert np.mean([by_pair["a", "c", name, "overlap"] for name in own]) == pytest.approx(0.5, abs=0.12)


def test_other_blocks_cannot_be_compared():
    small, large = ({"attention.q": np.ones((2, side, side), bool)} for side in (4, 2))
    with pytest.raises(ConfigError, match=r"attention.q has blocks \(2, 4, 4\) in one and \(2, 2, 2\)"):
        agreement([("a", small), ("b", large)])


def test_weights_that_are_no_blocks_are_refused(tmp_path):
    changes = {"method": "sr_ste", "drop": "none", "grow": "none", "storage": "dense_master", "block": (1, 1)}
    recipe = tiny_recipe(tmp_path, **{f"topology_{name}": value for name, value in changes.items()})
    with pytest.raises(ConfigError, match="storage=dense_master: drift is reported of packed weights only"):
        drift("a", recipe, {}, {}, tolerance=1e-9)
