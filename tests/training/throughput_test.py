import pytest

from sparsejax.hardware.chips import Chip
from sparsejax.training import throughput
from tests.training.tiny import tiny_recipe


def test_a_cpu_has_no_mfu_and_a_transient_product_executes_the_zeros(tmp_path):
    recipe = tiny_recipe(tmp_path, model_implementation="transient")
    row = throughput.Throughput(recipe).row(10.0)
    assert set(row) == {"executed_flops_per_second", "theoretical_flops_per_second"}
    # Per token and layer: 4 weights of 16 x 16 and 3 of 16 x 32 make 2560 elements, half of them active.
    difference = row["executed_flops_per_second"] - row["theoretical_flops_per_second"]
    assert difference == pytest.approx(10 * 3 * 2 * 2 * 2560 / 2)


def test_mfu_is_executed_flops_over_the_dense_peak(tmp_path, monkeypatch):
    chip = Chip("test", ("cpu",), 1e9, 1, 1.0, 1, "a test")
    monkeypatch.setattr(throughput, "chip_for", lambda kind: chip)
    row = throughput.Throughput(tiny_recipe(tmp_path)).row(100.0)
    assert row["mfu"] == pytest.approx(row["executed_flops_per_second"] / 1e9)


def test_a_loss_in_chunks_executes_the_head_once_more(tmp_path):
    # 64 tokens at once or in two halves; the head is 16 x 257.
    whole, chunked = (throughput.Throughput(tiny_recipe(tmp_path, train_loss_chunk=tokens)) for tokens in (64, 32))
    assert chunked.executed - whole.executed == 2 * 16 * 257
    assert chunked.theoretical == whole.theoretical
