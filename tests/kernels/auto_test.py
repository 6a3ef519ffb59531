"""``auto`` is a lookup in a written table: these tests pin how the table is read, not what was measured."""

from __future__ import annotations

import pytest

from sparsejax.config import ConfigError
from sparsejax.hardware.target import CPU, Target
from sparsejax.kernels import auto
from sparsejax.topology.blocks import BlockGrid

TABLE = {
    ("cpu", "none"): {
        512: {(16, 16): {0.25: 1.2}, (128, 128): {0.25: 0.9}},
        1024: {(16, 16): {0.5: 1.3, 0.25: 0.8}, (128, 128): {0.5: 0.7, 0.25: 0.4}},
    },
    ("cpu", "column"): {1024: {(16, 16): {0.5: 0.9}}},
}


@pytest.fixture(autouse=True)
def small_table(monkeypatch):
    monkeypatch.setattr(auto, "XLA_OVER_DENSE", TABLE)


def resolved(block: tuple[int, int], density: float, *, target: Target = CPU, balance: str = "none") -> str:
    grid = BlockGrid((1024, 1024), block, balance=balance)
    return auto.resolve("auto", target=target, grid=grid, density=density, dtype="bfloat16")


@pytest.mark.parametrize(
    ("block", "density", "want"),
    [
        ((16, 16), 0.25, "xla"),
        ((16, 16), 0.1, "xla"),  # sparser than anything measured: the sparsest cell
        ((16, 16), 0.26, "xla"),  # 0.25 rounded to whole blocks
        ((16, 16), 0.3, "transient"),  # between cells: the denser one
        ((64, 64), 0.5, "transient"),  # not measured: the largest block that fits inside
        ((128, 128), 0.5, "xla"),
        ((256, 128), 0.5, "xla"),
        ((128, 128), 0.6, "transient"),  # denser than anything measured
        ((8, 128), 0.1, "transient"),  # nothing measured fits inside
        ((1, 1), 0.01, "transient"),
    ],
)
def test_reading_the_table(block, density, want):
    assert resolved(block, density) == want


def test_balance_and_platform_have_their_own_cells():
    assert resolved((16, 16), 0.5, balance="column") == "xla"
    assert resolved((128, 128), 0.25, target=Target("gpu", "h200")) == "transient"


@pytest.mark.parametrize(
    ("shape", "block", "want"),
    [
        ((2048, 4096), (16, 16), "xla"),  # wider than anything measured: the widest
        ((4096, 768), (16, 16), "transient"),  # between sides: the narrower one, and the narrower side decides
        ((768, 4096), (128, 128), "xla"),
        ((256, 4096), (128, 128), "transient"),  # narrower than anything measured
    ],
)
def test_weights_are_looked_up_by_their_narrower_side(shape, block, want):
    grid = BlockGrid(shape, block)
    assert auto.resolve("auto", target=CPU, grid=grid, density=0.25, dtype="float32") == want


def test_few_tokens_have_a_table_of_their_own(monkeypatch):
    few = {"cpu": {1: {512: {(16, 16): {0.5: 0.6}}}, 8: {512: {(16, 16): {0.5: 0.99, 0.25: 0.4}}}}}
    monkeypatch.setattr(auto, "BATCHED_OVER_DENSE", few)
    wide, narrow = BlockGrid((1024, 1024), (16, 16)), BlockGrid((256, 1024), (16, 16))

    def at(tokens, density, grid=wide, target=CPU):
        return auto.resolve("auto", target=target, grid=grid, density=density, dtype="float32", tokens=tokens)

    assert at(1, 0.5) == at(2, 0.25) == at(8, 0.25) == "batched"
    assert at(2, 0.5) == "transient"  # by the row of 8 tokens
    assert at(9, 0.25) == at(None, 0.25) == "xla"  # more than any that was measured
    assert at(1, 0.5, narrow) == at(1, 0.25, target=Target("gpu", "h200")) == "transient"
    few["cpu"][8][512][16, 16] = {0.25: 0.96}
    assert at(8, 0.25) == "transient"  # not xla, which was measured with many


def test_a_name_is_returned_as_it_is_or_refused_in_one_line():
    grid = BlockGrid((16, 16), (1, 1))
    assert auto.resolve("bcoo", target=CPU, grid=grid, density=0.5, dtype="float32") == "bcoo"
    with pytest.raises(
        ConfigError, match=r"model\.implementation=xla: does not support 16x16 in blocks of 1x1, float32: "
    ):
        auto.resolve("xla", target=CPU, grid=grid, density=0.5, dtype="float32")
    with pytest.raises(ConfigError, match="use one of auto, reference, transient, xla, bcoo"):
        auto.resolve("fast", target=CPU, grid=grid, density=0.5, dtype="float32")


def on_tpu(chip: str, side: int, density: float, shape: tuple[int, int] = (1024, 1024), dtype="bfloat16") -> str:
    grid = BlockGrid(shape, (side, side))
    return auto.resolve("auto", target=Target("tpu", chip), grid=grid, density=density, dtype=dtype)


def test_a_tpu_gets_its_kernel_where_it_issues_less_than_the_dense_product(monkeypatch):
    table = {("v5e", 128): (1.5, 1.0), ("v6e", 128): (4.0, 2.0), ("v6e", 256): (1.5, 1.0)}
    monkeypatch.setattr(auto, "PALLAS_TPU_OVER_DENSE", table)
    assert on_tpu("v5e", 128, 0.5) == on_tpu("v5e", 256, 0.25) == "pallas_tpu@v5e"
    assert on_tpu("v5e", 128, 0.96) == "transient"
    # Two blocks a line, then four.
    assert on_tpu("v6e", 128, 0.25) == "transient"
    assert on_tpu("v6e", 128, 0.25, shape=(2048, 2048)) == on_tpu("v6e", 256, 0.25) == "pallas_tpu@v6e"
    # Blocks that it does not take, a chip without a row, float32, which was not counted, and what does not fit.
    assert on_tpu("v5e", 64, 0.1) == on_tpu("v4", 128, 0.1) == "transient"
    assert on_tpu("v5e", 128, 0.1, dtype="float32") == "transient"
    assert on_tpu("v5e", 128, 0.5, shape=(16384, 16384)) == "transient"
