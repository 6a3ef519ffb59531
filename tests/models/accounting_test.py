import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.accounting import (
    Flops,
    StateBytes,
    WeightCount,
    dense_twin,
    dense_weights,
    executed_flops,
    index_bytes,
    memory,
    parameters,
    theoretical_flops,
)
from sparsejax.models.functional import abstract, merge
from sparsejax.models.shapes import shape_of_model
from sparsejax.models.sizes import SIZES
from sparsejax.topology.blocks import index_from_mask


def quarter(shape, block=(1, 1)):
    weights = [dataclasses.replace(weight, block=block) for weight in dense_weights(shape)]
    return tuple(dataclasses.replace(w, count=w.cells // 4, capacity=w.cells // 4) for w in weights)


def test_parameters_of_a_worked_example():
    # Hidden 4, MLP 8, two heads of 2, one key head, one layer, ten tokens.
    shape = dataclasses.replace(SIZES["20m"].shape(8), hidden=4, heads=2, kv_heads=1, head_dim=2, layers=1, vocab=10)
    counted = parameters(shape, dense_weights(shape))
    assert counted.maskable == 16 + 8 + 8 + 16 + 3 * 32
    assert counted.embedding == 2 * 40 and counted.dense_part == 80 + 3 * 4
    assert counted.total == counted.active == 144 + 92
    assert counted.non_embedding == counted.active_non_embedding == 144 + 12
    tied = dataclasses.replace(shape, tied_head=True)
    assert parameters(tied, dense_weights(tied)).total == counted.total - 40


def test_active_parameters_of_a_published_size():
    shape = SIZES["130m"].shape(2048)
    counted = parameters(shape, quarter(shape))
    assert counted.active == 134_105_856 - 84_934_656 * (1 - 0.25)
    assert counted.density == 0.25


def test_flops_of_a_worked_example():
    # One layer as above, sequence of 5: 2 * 144 for the weights, 4 * 5 * 4 for attention, 2 * 40 for the head.
    shape = dataclasses.replace(SIZES["20m"].shape(8), hidden=4, heads=2, kv_heads=1, head_dim=2, layers=1, vocab=10)
    assert theoretical_flops(shape, dense_weights(shape), 5) == Flops(forward=448, train=3 * 448)
    assert theoretical_flops(shape, quarter(shape), 5).forward == 72 + 80 + 80
    names = {weight.name: "xla" for weight in quarter(shape)}
    assert executed_flops(shape, quarter(shape), 5, names, "none").forward == 72 + 80 + 80
    names["mlp.up"] = "transient"  # 2 * 32 instead of 2 * 8
    assert executed_flops(shape, quarter(shape), 5, names, "none").forward == 72 + 48 + 80 + 80
    # Everything but the head and mlp.down (2 * 8).
    assert executed_flops(shape, quarter(shape), 5, names, "full").train == 3 * 280 + 200 - 16
    assert executed_flops(shape, quarter(shape), 5, names, "dots").train == 3 * 280 + 80
    assert executed_flops(shape, quarter(shape), 5, names, "none", logits_recomputed=True).train == 3 * 280 + 80
    with pytest.raises(ValueError, match="not known"):
        executed_flops(shape, quarter(shape), 5, names | {"mlp.up": "fastest"}, "none")
    with pytest.raises(ValueError, match="remat"):
        executed_flops(shape, quarter(shape), 5, names, "some")


def test_index_bytes_of_a_worked_example():
    # 16 x 24 in blocks of 4: 4 x 6 places. Six blocks, 12 bytes each; columns cut in two shares of 3 have 2 * (3 + 1)
    # column pointers and 2 * (4 + 1) row pointers.
    up = WeightCount(name="mlp.up", shape=(16, 24), block=(4, 4), shards=2, count=6, capacity=6)
    assert index_bytes(up) == 4 * (3 * 6 + 8 + 10)
    # Rows cut in two: 2 * (6 + 1) column pointers and 2 * (2 + 1) row pointers.
    assert index_bytes(dataclasses.replace(up, name="mlp.down")) == 4 * (3 * 6 + 14 + 6)
    assert index_bytes(dataclasses.replace(up, block=(1, 1), shards=1)) == 4 * 6
    assert index_bytes(dense_twin([up])[0]) == 0


def test_dense_master_weights_cost_a_dense_run_but_count_n_of_m():
    # 2:4 of every weight of the layer above: 72 used of 144.
    shape = dataclasses.replace(SIZES["20m"].shape(8), hidden=4, heads=2, kv_heads=1, head_dim=2, layers=1, vocab=10)
    dense = dense_weights(shape)
    masked = [dataclasses.replace(weight, count=weight.cells // 2, storage="dense_master") for weight in dense]
    assert parameters(shape, masked).active == 72 + 92 and parameters(shape, masked).density == 0.5
    assert memory(shape, masked) == memory(shape, dense)
    assert theoretical_flops(shape, masked, 5).forward == 2 * 72 + 80 + 80
    assert executed_flops(shape, masked, 5, {}, "none") == executed_flops(shape, dense, 5, {}, "none")
    assert dense_twin(masked) == dense


def test_monarch_factors_cost_what_they_hold():
    # i (K + N) parameters of each weight with i = 1: 8 of 16, 6 of 8, 12 of 32.
    shape = dataclasses.replace(SIZES["20m"].shape(8), hidden=4, heads=2, kv_heads=1, head_dim=2, layers=1, vocab=10)
    held = 2 * 8 + 2 * 6 + 3 * 12
    factors = [
        dataclasses.replace(weight, count=sum(weight.shape), capacity=sum(weight.shape), storage="monarch")
        for weight in dense_weights(shape)
    ]
    assert parameters(shape, factors).active == held + 92
    assert memory(shape, factors).maskable == StateBytes(
        values=4 * held, indices=0, ages=0, moments=8 * held, gradients=4 * held
    )
    flops = theoretical_flops(shape, factors, 5)
    assert flops.forward == 2 * held + 80 + 80 and flops == executed_flops(shape, factors, 5, {}, "none")
    # Everything but the head and the second factor of mlp.down, 1 x 4.
    assert executed_flops(shape, factors, 5, {}, "full").train == 3 * flops.forward + 2 * held + 80 - 2 * 4


def test_galore_keeps_small_moments_and_a_projection():
    # Rank 3 of 4 x 4, 4 x 2 (capped at 2), 4 x 8: two moments of r min(K, N) and a projection of r max(K, N).
    shape = dataclasses.replace(SIZES["20m"].shape(8), hidden=4, heads=2, kv_heads=1, head_dim=2, layers=1, vocab=10)
    dense = memory(shape, dense_weights(shape))
    projected = memory(shape, dense_weights(shape), galore_rank=3)
    elements = 2 * (2 * 12 + 12) + 2 * (2 * 4 + 8) + 3 * (2 * 12 + 24)
    assert projected.maskable == dataclasses.replace(dense.maskable, moments=4 * elements)
    assert projected.dense_part == dense.dense_part
    halved = memory(shape, dense_weights(shape), "bfloat16", galore_rank=3)
    assert halved.maskable.moments == 2 * (2 * 24 + 2 * 8 + 3 * 24) + 4 * (2 * 12 + 2 * 8 + 3 * 24)


@pytest.mark.parametrize("block, shards", [((4, 4), 2), ((1, 1), 1), ((1, 4), 1)])
def test_bytes_are_those_of_the_real_trees(make_model, make_weights, builder, block, shards):
    model = make_model()
    weights = make_weights(model, density=0.25, block=block, shards=shards, rules=("mlp[.]up=1.0",))
    llama = abstract(builder(model, weights))

    def size(tree):
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    counted = memory(shape_of_model(model, 24, 32), [weight.counted for weight in weights.values()])
    assert counted.total.values == counted.total.gradients == size(llama.params)
    assert counted.total.moments == 2 * size(llama.params)
    assert counted.total.indices == size(llama.topology)
    slots = sum(w.capacity for w in weights.values() if not w.dense)
    assert counted.total.ages == counted.maskable.ages == 4 * 2 * slots
    kinds = {name: tree for name, tree in llama.params["layers"].items() if "norm" not in name}
    assert counted.maskable.values == size(kinds)


def test_state_of_blocks_of_16_is_density_plus_two_percent():
    shape = SIZES["60m"].shape(1376)
    for block in ((16, 16), (32, 32)):
        sparse, twin = memory(shape, quarter(shape, block)), memory(shape, dense_weights(shape))
        assert 0.25 < sparse.maskable.total / twin.maskable.total < 0.27
        assert sparse.dense_part == twin.dense_part
    halved = memory(shape, quarter(shape), "bfloat16")
    assert 2 * halved.total.moments == memory(shape, quarter(shape)).total.moments


def filled(tree):
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(0, 0.1, leaf.shape).astype(leaf.dtype), tree)


def test_flops_agree_with_the_compiler_and_remat_changes_nothing_else(make_model, make_weights, builder):
    # The compiler counts a loop's body once, so one layer; it also counts norms, softmax and activations, which at
    # these widths are 1 to 6 % of the products.
    model = make_model(hidden=64, mlp=128, heads=4, kv_heads=2, head_dim=16, layers=1)
    weights = make_weights(model, block=(32, 32), rules=("attention[.]q=0.5",))
    shape, counts = shape_of_model(model, 128, 256), [weight.counted for weight in weights.values()]
    tokens = np.random.default_rng(1).integers(0, 256, (2, 32))
    index = index_from_mask(np.eye(2, dtype=bool), weights["attention.q"].grid, 2)
    topology = {"layers": {"attention": {"q": {name: x[None] for name, x in vars(index).items()}}}}

    def compiled(remat, transform):
        llama = abstract(builder(dataclasses.replace(model, remat=remat), weights, vocab_size=256))
        loss = transform(lambda p: jnp.mean(merge(llama.graphdef, p, topology)(tokens) ** 2))
        params = filled(llama.params)
        program = jax.jit(loss).lower(params).compile({"xla_backend_optimization_level": 0})
        return program(params), program.cost_analysis()["flops"] / tokens.size

    def executed(remat):
        return executed_flops(shape, counts, 32, {"attention.q": "transient"}, remat)

    assert 1.0 <= compiled("none", lambda loss: loss)[1] / executed("none").forward < 1.06
    (expected, flops) = compiled("none", jax.value_and_grad)
    assert 1.0 <= flops / executed("none").train < 1.06
    for remat in ("full", "dots"):
        result, flops = compiled(remat, jax.value_and_grad)
        assert 1.0 <= flops / executed(remat).train < 1.06
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), result, expected)
