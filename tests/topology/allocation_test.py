"""Counts of active blocks: published numbers, water filling by hand, exactness."""

import math

import pytest

from sparsejax.config import ConfigError
from sparsejax.topology.allocation import allocate, densities, nearest_count
from sparsejax.topology.blocks import BlockGrid

ATTENTION = ["attention.q", "attention.k", "attention.v", "attention.o"]
MLP = ["mlp.gate", "mlp.up", "mlp.down"]


def llama(hidden, mlp, block=(1, 1), shards=1):
    shapes = {name: (hidden, hidden) for name in ATTENTION}
    shapes |= {"mlp.gate": (hidden, mlp), "mlp.up": (hidden, mlp), "mlp.down": (mlp, hidden)}
    rows = ("attention.o", "mlp.down")
    return {n: BlockGrid(s, block, shards, "rows" if n in rows else "columns") for n, s in shapes.items()}


def total(grids, density):
    return sum(density[name] * math.prod(grid.shape) for name, grid in grids.items())


def test_erk_of_the_published_60m_model():
    found = densities(llama(512, 1376), 0.25, "erk", 1.0)
    assert [round(found[name], 6) for name in ATTENTION] == [0.316393] * 4
    assert [round(found[name], 6) for name in MLP] == [0.217061] * 3


def test_erk_fills_small_weights_first_by_hand():
    # a [2, 2]: (2+2)/4 = 1, 4 elements; b [4, 8]: 12/32 = 0.375, 32 elements; at density 0.75 the budget is 27.
    # eps = 27 / (4 * 1 + 32 * 0.375) = 1.6875 would give a 1.6875: a becomes dense, 23 are left for b: 23 / 32.
    grids = {"a": BlockGrid((2, 2), (1, 1)), "b": BlockGrid((4, 8), (1, 1))}
    assert densities(grids, 0.75, "erk", 1.0) == pytest.approx({"a": 1.0, "b": 23 / 32})
    assert allocate(grids, 0.75, "erk", 1.0, ()) == {"a": 4, "b": 23}
    # At 0.25 nothing is full: eps = 9 / 16.
    assert densities(grids, 0.25, "erk", 1.0) == pytest.approx({"a": 0.5625, "b": 0.2109375})


def test_water_filling_may_take_several_rounds():
    # Raw densities 2, 1.5 and 0.53; budget 0.9 * 69 = 62.1. Round 1 fills a, round 2 fills b, c takes the rest.
    grids = {"a": BlockGrid((1, 1), (1, 1)), "b": BlockGrid((1, 2), (1, 1)), "c": BlockGrid((6, 11), (1, 1))}
    found = densities(grids, 0.9, "erk", 1.0)
    assert found == pytest.approx({"a": 1.0, "b": 1.0, "c": 59.1 / 66})


@pytest.mark.parametrize("allocation", ["uniform", "erk"])
@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("density", [0.0625, 0.5, 0.9, 1.0])
def test_the_total_is_kept(allocation, ratio, density):
    grids = llama(512, 1376)
    found = densities(grids, density, allocation, ratio)
    assert total(grids, found) == pytest.approx(density * total(grids, dict.fromkeys(grids, 1.0)))
    assert all(0 < value <= 1 for value in found.values())


def test_ratio_is_attention_over_mlp():
    found = densities(llama(512, 1376), 0.25, "uniform", 2.0)
    assert found["attention.k"] / found["mlp.up"] == pytest.approx(2.0)
    # 4 attention weights of 1 and 3 of 1376 / 512: x = 0.25 * 12.0625 / (2 * 4 + 8.0625)
    assert found["mlp.up"] == pytest.approx(0.25 * 12.0625 / 16.0625)


def test_the_first_matching_rule_fixes_a_density_and_the_rest_shares_the_request():
    grids = llama(64, 128, block=(8, 8))
    found = allocate(grids, 0.25, "uniform", 1.0, (r"attention\.[qk]=0.5", r"attention\..*=0.125", "mlp.down=1"))
    assert found == {
        **{"attention.q": 32, "attention.k": 32, "attention.v": 8, "attention.o": 8},
        **{"mlp.gate": 32, "mlp.up": 32, "mlp.down": 128},
    }


def test_a_rule_must_match_a_whole_name():
    grids = llama(64, 128)
    for pattern in ("attention", "q", r"mlp\.gat"):
        with pytest.raises(
            ConfigError, match=r"^topology.rules='.*=0.5': matches no weight; .*attention\.q.*mlp\.down$"
        ):
            allocate(grids, 0.25, "uniform", 1.0, (f"{pattern}=0.5",))
    with pytest.raises(ConfigError, match=r"must be in \(0, 1\]"):
        allocate(grids, 0.25, "uniform", 1.0, ("mlp.*=0",))


def test_rules_may_fix_every_weight():
    assert set(allocate(llama(64, 128, (8, 8)), 0.25, "erk", 1.0, (".*=0.5",)).values()) == {32, 64}


@pytest.mark.parametrize(
    ("density", "shards", "expected"),
    [
        (0.25, 1, 4),
        (0.28, 1, 4),  # 4.48
        (0.29, 1, 5),  # 4.64
        (0.28, 4, 4),  # 1.12 a share
        (0.4, 4, 8),  # 1.6 a share
        (0.001, 1, 1),  # never nothing
        (0.001, 4, 4),  # one block a share
        (1.0, 4, 16),
        (0.99, 4, 16),
    ],
)
def test_nearest_count(density, shards, expected):
    assert nearest_count(density, BlockGrid((8, 8), (2, 2), shards)) == expected


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("block", [(1, 1), (8, 8), (4, 16)])
def test_counts_are_multiples_of_the_shares_and_off_by_half_a_share_at_most(block, shards):
    grids = llama(128, 256, block, shards)
    for density in (0.05, 0.3, 0.77):
        for name, count in allocate(grids, density, "uniform", 1.0, ()).items():
            assert count % shards == 0
            assert abs(count - density * grids[name].cells) <= shards / 2
