"""Traffic, floor and estimate of one step: worked examples with numbers that fit on paper."""

import dataclasses

import pytest

from sparsejax.models.accounting import WeightCount
from sparsejax.models.shapes import DecoderShape, weight_shapes
from sparsejax.planning import estimate
from sparsejax.planning.floor import (
    COMPUTE_SHARE,
    LINK_SHARE,
    MEMORY_SHARE,
    Rates,
    Times,
    memory_bytes,
    step_flops,
    times_of,
)
from sparsejax.planning.ring import Traffic
from sparsejax.planning.traffic import Work, step_traffic

SHAPE = DecoderShape(hidden=16, mlp=32, heads=2, kv_heads=2, head_dim=8, layers=3, vocab=100, tied_head=False)
# Half of the blocks of every weight: 4 * 16 * 16 / 2 + 3 * 16 * 32 / 2 = 1280 elements a layer.
WEIGHTS = tuple(
    WeightCount(name, size, (4, 4), 2, size[0] * size[1] // 32, size[0] * size[1] // 32)
    for name, size in weight_shapes(SHAPE).items()
)
WORK = Work(SHAPE, WEIGHTS, 2, 4, 2, rows=16, length=8, microbatches=2, compute_bytes=2, remat="none")


def sent(work, axes, kind):
    return sum(each.payload for each in step_traffic(work) if each.axes == axes and each.kind == kind)


def test_worked_example():
    assert WORK.stored == 1280 and WORK.embedding == 3200 and WORK.micro_tokens == 8
    assert sent(WORK, ("fsdp",), "all-gather") == 2 * 3 * 2 * 2 * 1280 // 2
    assert sent(WORK, ("fsdp",), "reduce-scatter") == 2 * 3 * 4 * 1280 // 2
    assert sent(WORK, ("fsdp", "tensor"), "all-gather") == 2 * 2 * 3200
    assert sent(WORK, ("fsdp", "tensor"), "reduce-scatter") == 2 * 4 * 3200
    assert sent(WORK, ("replica",), "all-reduce") == 4 * (3 * 1280 // 2 + 3200 // 2) // 4
    assert sent(WORK, ("tensor",), "all-reduce") == 2 * 3 * 4 * 2 * 8 * 16


def test_what_falls_with_density_and_what_does_not():
    half = tuple(dataclasses.replace(each, count=each.count // 2, capacity=each.capacity // 2) for each in WEIGHTS)
    sparser = dataclasses.replace(WORK, weights=half)
    assert sent(sparser, ("fsdp",), "all-gather") == sent(WORK, ("fsdp",), "all-gather") // 2
    assert sent(sparser, ("tensor",), "all-reduce") == sent(WORK, ("tensor",), "all-reduce")
    assert sent(sparser, ("fsdp", "tensor"), "all-gather") == sent(WORK, ("fsdp", "tensor"), "all-gather")


def test_recomputing_sums_once_more_and_one_device_sends_nothing():
    full = dataclasses.replace(WORK, remat="full")
    for recomputed in (full, dataclasses.replace(WORK, remat="dots")):
        assert sent(recomputed, ("tensor",), "all-reduce") * 4 == sent(WORK, ("tensor",), "all-reduce") * 5
    assert step_traffic(dataclasses.replace(WORK, replica=1, fsdp=1, tensor=1)) == ()
    assert sent(dataclasses.replace(WORK, apart=True), ("replica",), "all-reduce") == 0
    tied = dataclasses.replace(WORK, shape=dataclasses.replace(SHAPE, tied_head=True))
    assert sent(tied, ("fsdp", "tensor"), "all-gather") * 2 == sent(WORK, ("fsdp", "tensor"), "all-gather")


@pytest.mark.parametrize(
    ("remat", "compared", "passes", "sums"),
    [("none", False, 1, 6), ("none", True, 1, 6), ("full", False, 1, 7), ("dots", True, 1, 10), ("full", True, 2, 10)],
)
def test_a_teacher_reads_its_dense_weights_once_and_again_where_it_is_recomputed(remat, compared, passes, sums):
    """The same numbers as in the programs that XLA compiles for 2 x 2 x 2 devices."""
    taught = dataclasses.replace(WORK, remat=remat, teacher=True, compared=compared)
    alone = dataclasses.replace(WORK, remat=remat)
    more = sent(taught, ("fsdp",), "all-gather") - sent(alone, ("fsdp",), "all-gather")
    assert more == passes * 2 * 3 * 2 * (4 * 16 * 16 + 3 * 16 * 32) // 2
    assert sent(taught, ("fsdp", "tensor"), "all-gather") == 2 * sent(alone, ("fsdp", "tensor"), "all-gather")
    assert sent(taught, ("tensor",), "all-reduce") * 4 == sent(WORK, ("tensor",), "all-reduce") * sums
    assert sent(taught, ("fsdp",), "reduce-scatter") == sent(alone, ("fsdp",), "reduce-scatter")


def test_memory_on_one_device():
    alone = dataclasses.replace(WORK, replica=1, fsdp=1, tensor=1, rows=1, microbatches=1)
    # In and out of q k v, of o, of gate and up, of down: 16+48, 32, 16+64, 32+16; forward, and twice backward.
    products = 8 * 3 * 3 * (64 + 32 + 80 + 48) * 2
    weights = 3 * 1280 * 2 * 2
    logits = 2 * 8 * 100 * 4
    optimizer = (3 * 1280 + 3200) * (4 * 4 + 4 * 4)
    assert memory_bytes(alone, logits_made=1, moment_bytes=4) == products + weights + logits + optimizer
    assert memory_bytes(alone, logits_made=1, moment_bytes=2) == products + weights + logits + optimizer * 3 // 4


def test_flops_of_fused_attention_are_half_a_square():
    implementations = {weight.name: "xla" for weight in WEIGHTS}
    whole, at_least = step_flops(WORK, implementations, attention="splash", logits_recomputed=False)
    assert whole - at_least == 3 * 3 * 4 * 8 * 16 * WORK.tokens // 2
    assert step_flops(WORK, implementations, attention="xla", logits_recomputed=False) == (whole, whole)


def test_times():
    traffic = (
        Traffic("all-gather", ("fsdp",), 4, 1, 0, 300),
        Traffic("reduce-scatter", ("fsdp",), 4, 1, 0, 100),
        Traffic("all-reduce", ("tensor",), 2, 1, 0, 600),
    )
    times = times_of(1000, 50, traffic, Rates(100.0, 10.0, {("fsdp",): 100.0, ("tensor",): 200.0}))
    assert times == Times(10.0, 5.0, {("fsdp",): 4.0, ("tensor",): 3.0})
    assert (times.interconnect, times.floor, times.bound) == (7.0, 10.0, "compute")
    assert times.expected == pytest.approx(3 / LINK_SHARE + 10 / COMPUTE_SHARE)
    slow = Times(1.0, 2.0, {("fsdp",): 8.0})
    assert slow.bound == "interconnect" and slow.expected == pytest.approx(8 / LINK_SHARE)
    assert Times(0.0, 2.0, {}).expected == pytest.approx(2 / MEMORY_SHARE)


def test_what_is_kept_depends_on_what_is_recomputed():
    def kept(remat, **changes):
        work = dataclasses.replace(WORK, remat=remat, **changes)
        return estimate.step_bytes(work, attention="splash", chunk_tokens=8, sequence=False)[estimate.KEPT]

    assert kept("full") == 3 * 8 * 16 * 2  # one residual stream a layer
    outputs = (3 * 16 + 2 * 32) // 2 + 16 + 16
    assert kept("dots") == kept("full") * (16 + outputs) // 16
    assert kept("none") > kept("dots")
    assert kept("full", microbatches=1) == 2 * kept("full")
    found = estimate.step_bytes(WORK, attention="splash", chunk_tokens=8, sequence=True)
    assert found[estimate.LOGITS] == 8 * 100 * 4 * 2  # and their gradient
    assert found[estimate.GRADIENTS] == 4 * (3 * 1280 + 3200) // 8
