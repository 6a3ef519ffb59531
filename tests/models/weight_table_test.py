import dataclasses

import pytest

from sparsejax.config import ConfigError
from sparsejax.models.accounting import dense_twin, parameters
from sparsejax.models.monarch_shape import nearest_shape
from sparsejax.models.shapes import shape_of_model
from sparsejax.topology.nm import NmPattern


def test_counts_shapes_and_axes_of_a_worked_example(make_model, make_weights):
    table = make_weights(make_model(), density=0.25, shards=2)
    # Blocks of 4 x 4: q is 16 x 32, so 4 x 8 blocks, a quarter of them active, half of these in each share.
    assert {name: (w.grid.shape, w.count, w.grid.shard_axis) for name, w in table.items()} == {
        "attention.q": ((16, 32), 8, "columns"),
        "attention.k": ((16, 16), 4, "columns"),
        "attention.v": ((16, 16), 4, "columns"),
        "attention.o": ((32, 16), 8, "rows"),
        "mlp.gate": ((16, 24), 6, "columns"),
        "mlp.up": ((16, 24), 6, "columns"),
        "mlp.down": ((24, 16), 6, "rows"),
    }
    assert all(w.density == 0.25 and not w.dense and w.capacity == w.count for w in table.values())


def test_realised_density_is_the_nearest_count(make_model, make_weights):
    # mlp.up has 24 blocks: 0.3 * 24 = 7.2 is realised as 7, and as 6 in two equal shares (3.6 rounds to 4: 8).
    assert make_weights(make_model(), density=0.3)["mlp.up"].density == pytest.approx(7 / 24)
    assert make_weights(make_model(), density=0.3, shards=2)["mlp.up"].density == pytest.approx(8 / 24)


def test_a_rule_makes_one_kind_dense(make_model, make_weights):
    table = make_weights(make_model(), density=0.5, rules=("attention[.]o=1.0",))
    assert [name for name, weight in table.items() if weight.dense] == ["attention.o"]


def test_mlp_width_rounds_up_at_every_density(make_model, make_weights):
    model = make_model(mlp=21)
    assert make_weights(model, density=0.5, shards=2)["mlp.gate"].grid.shape == (16, 24)
    assert make_weights(model, density=1.0, shards=2)["mlp.gate"].grid.shape == (16, 24)


def test_a_dense_run_needs_no_dividing_block(make_model, make_weights):
    table = make_weights(make_model(), density=1.0, block=(5, 5))
    assert all(weight.dense for weight in table.values())
    with pytest.raises(ValueError, match="does not divide"):
        make_weights(make_model(), density=0.5, block=(5, 5))


def test_balance_reaches_the_grid(make_model, make_weights):
    assert {w.grid.balance for w in make_weights(make_model(), density=0.5, balance="column").values()} == {"column"}


def test_a_rule_that_matches_nothing_is_the_users_error(make_model, make_weights):
    with pytest.raises(ConfigError, match="matches no weight"):
        make_weights(make_model(), density=0.5, rules=("attention[.]x=0.1",))


def test_active_parameters_follow_the_published_identity(make_model, make_weights):
    model = make_model()
    counts = [weight.counted for weight in make_weights(model, density=0.25).values()]
    shape = shape_of_model(model, mlp=24, vocab=32)
    counted = parameters(shape, counts)
    assert counted.active == counted.total - counted.maskable * (1 - 0.25)
    assert counted.density == 0.25
    twin = parameters(shape, dense_twin(counts))
    assert dataclasses.replace(counted, active=counted.total) == twin


def test_dense_master_counts_n_of_m_and_stores_all(make_model, make_weights):
    table = make_weights(make_model(), storage="dense_master", density=0.25, nm=(1, 4), flow="mask_exp")
    for weight in table.values():
        (inputs, outputs) = weight.grid.shape
        assert weight.structure == NmPattern(used=1, group=4, flow="mask_exp")
        assert (weight.count, weight.capacity) == (inputs * outputs // 4, inputs * outputs)
        assert (weight.density, weight.storage, weight.leaves) == (0.25, "dense_master", ("kernel",))
        assert not weight.packed and not weight.dense and weight.counted.storage == "dense_master"


def test_groups_divide_the_inputs_of_every_weight(make_model, make_weights):
    # Blocks of 1 leave the MLP width as it is; groups of 8 inputs of mlp.down round it up, in the dense twin too.
    for density in (0.25, 1.0):
        table = make_weights(make_model(mlp=21), storage="dense_master", density=density, nm=(2, 8), block=(1, 1))
        assert table["mlp.down"].grid.shape == (24, 16)


def test_monarch_counts_the_parameters_of_its_factors(make_model, make_weights):
    # Needs no blocks: 5 x 5 divides none of the widths. A rule keeps one kind dense.
    table = make_weights(
        make_model(), storage="monarch", density=0.5, block=(5, 5), balance="column", rules=("mlp[.]up=1.0",)
    )
    for name, weight in table.items():
        if name == "mlp.up":
            assert weight.dense and weight.leaves == ("kernel",)
            continue
        factors = nearest_shape(weight.grid.shape, 0.5)
        assert weight.structure == factors and weight.count == weight.capacity == factors.parameters(weight.grid.shape)
        assert (weight.storage, weight.leaves, weight.packed) == ("monarch", ("first", "second"), False)
        assert weight.density == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("storage", ["dense_master", "monarch"])
def test_other_storages_are_plain_kernels_at_density_1(make_model, make_weights, storage):
    assert all(weight.dense for weight in make_weights(make_model(), storage=storage).values())


def test_nm_has_one_density(make_model, make_weights):
    def table(**changes):
        return make_weights(make_model(), storage="dense_master", density=0.5, nm=(2, 4), **changes)

    kept = table(rules=("attention[.]o=1.0",))
    assert kept["attention.o"].dense and kept["attention.q"].density == 0.5
    with pytest.raises(ConfigError, match=r"topology.nm=\(2, 4\): mlp.up would have density 0.25"):
        table(rules=("mlp[.]up=0.25",))
    with pytest.raises(ConfigError, match="would have density"):
        table(allocation="erk")
