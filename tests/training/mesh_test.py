"""A run on a mesh is the run of one device: same losses, same topology, nothing gathered that need not be."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.topology.keys import seed_argument
from sparsejax.training import programs
from sparsejax.training.growth_scores import NO_SCORES
from sparsejax.training.mesh import make_mesh, settle_mesh
from sparsejax.training.recipe import index_of, values_of
from sparsejax.training.resize import resize
from sparsejax.training.rewire_plan import plan_at
from sparsejax.training.sharding import placed, state_shardings
from tests.training.meshes import ONE, WIDTHS, batch, mesh_recipe, train_steps
from tests.training.tiny import tiny_run

# Blocks of 64 rows leave each of eight devices a full tile of eight.
ROWS = {
    "model_hidden": 64,
    "model_mlp": 128,
    "model_head_dim": 8,
    "topology_shards": 1,
    "topology_block": (64, 16),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("meshes")


@pytest.fixture(scope="module")
def alone(directory):
    """30 steps of one device, with rewirings after 10 and 20."""
    return train_steps(mesh_recipe(directory, ONE), 30)


@pytest.mark.parametrize(
    "shape",
    [(2, 2, 2), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((1, 8, 1), (8, 1, 1), (1, 1, 8)))],
    ids=str,
)
def test_the_losses_are_those_of_one_device(directory, alone, shape):
    recipe = mesh_recipe(directory, shape)
    losses, state = train_steps(recipe, 30)
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
    assert losses[-1] < losses[0]
    wanted = state_shardings(recipe)
    assert jax.tree.all(
        jax.tree.map(lambda leaf, sharding: leaf.sharding.is_equivalent_to(sharding, leaf.ndim), state, wanted)
    )


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        pytest.param(
            (2, 2, 2), {"mesh_sequence": True, "train_microbatches": 2, "model_remat": "dots"}, marks=pytest.mark.slow
        ),
        pytest.param(
            (2, 2, 2),
            {"topology_drop": "taylor", "topology_grow": "gradient", "model_tied_head": True},
            marks=pytest.mark.slow,
        ),
        pytest.param((2, 4, 1), {"topology_block": (1, 1), "topology_shards": 1}, marks=pytest.mark.slow),
        pytest.param(
            (1, 4, 2),
            {"topology_density": 1.0, "topology_drop": "none", "topology_grow": "none", "optim_form": "naive"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["sequence", "gradient", "unstructured", "dense"],
)
def test_every_kind_of_run_fits_a_mesh(directory, shape, changes):
    sequence = bool(changes.get("mesh_sequence"))
    settings = {"topology_every": 3, "model_layers": 1} | changes
    settings.pop("mesh_sequence", None)
    one, many = (mesh_recipe(directory, s, sequence=sequence, **settings) for s in (ONE, shape))
    np.testing.assert_allclose(train_steps(many, 5)[0], train_steps(one, 5)[0], rtol=1e-5)


@pytest.fixture(scope="module")
def rewired(directory, alone):
    """The state of one device after 30 steps, and what its rewiring makes of it."""
    recipe = mesh_recipe(directory, ONE)
    before = jax.device_get(alone[1])
    after, _ = programs.rewire_step(recipe)(alone[1], plan_at(recipe, 10), NO_SCORES)
    return before, jax.device_get(after)


@pytest.mark.parametrize(
    "shape",
    [(2, 2, 2), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((1, 8, 1), (8, 1, 1), (1, 1, 8)))],
    ids=str,
)
def test_equal_weights_and_keys_give_the_same_topology_bit_for_bit(directory, rewired, shape):
    before, after = rewired
    one, many = mesh_recipe(directory, ONE), mesh_recipe(directory, shape)
    state = jax.device_put(jax.jit(lambda s: resize(s, one.sparse, many.sparse))(before), state_shardings(many))
    found, _ = programs.rewire_step(many)(state, plan_at(many, 10), NO_SCORES)
    found = jax.jit(lambda s: resize(s, many.sparse, one.sparse))(jax.device_get(found))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
    for name in one.sparse:
        index, old = index_of(after.topology, name), index_of(before.topology, name)
        assert not jax.tree.all(jax.tree.map(np.array_equal, index, old))


@pytest.mark.parametrize("shape", [pytest.param((1, 8, 1), marks=pytest.mark.slow), (2, 2, 2)], ids=str)
def test_the_first_state_is_the_same_on_every_mesh(directory, shape):
    one, many = mesh_recipe(directory, ONE), mesh_recipe(directory, shape)
    first = programs.init_state(one)
    found = jax.jit(lambda s: resize(s, many.sparse, one.sparse))(jax.device_get(programs.init_state(many)))
    for name in one.sparse:
        index, other = index_of(first.topology, name), index_of(found.topology, name)
        assert jax.tree.all(jax.tree.map(np.array_equal, index, other))
        np.testing.assert_allclose(values_of(first.params, name), values_of(found.params, name), rtol=1e-6)


def test_every_device_makes_its_own_part_of_the_first_state(directory):
    settings = ROWS | {"model_hidden": 256, "model_head_dim": 32, "model_mlp": 512}
    seeds = seed_argument(0), seed_argument(0)
    one, many = (
        programs.init_program(mesh_recipe(directory, shape, **settings)).lower(*seeds).compile()
        for shape in (ONE, (1, 8, 1))
    )
    assert gathers(many.as_text(), "f32") == {}
    whole, part = one.memory_analysis(), many.memory_analysis()
    assert part.output_size_in_bytes < 1.05 * whole.output_size_in_bytes / 8
    assert part.temp_size_in_bytes < 1.5 * whole.temp_size_in_bytes / 8


def gathers(text, dtype):
    """Shapes of the ``dtype`` arrays that a compiled program gathers, with how often."""
    shapes = re.findall(rf"= {dtype}\[([\d,]*)\]\S* all-gather", text)
    return {shape: shapes.count(shape) for shape in set(shapes)}


def test_a_step_gathers_active_values_twice_and_nothing_else(directory):
    recipe = mesh_recipe(directory, (1, 8, 1), **ROWS)
    assert {weight.cut for weight in recipe.sparse.values()} == {"rows"}
    target = jax.ShapeDtypeStruct((16, 16), jnp.int32)
    text = programs.train_step(recipe).lower(placed(recipe), target, recipe.rates).compile().as_text()
    # Embedding and head once; the 2 blocks of q, k, v, o and the 4 of gate, up, down in each of the two passes.
    assert gathers(text, "f32") == {"257,64": 1, "64,257": 1, "2,64,16": 8, "4,64,16": 6}
    scattered = re.findall(r"= f32\[([\d,]*)\]\S* reduce-scatter", text)
    assert sorted(set(scattered)) == ["2,8,16", "257,8", "4,8,16", "8,257"] and len(scattered) == 9


def test_nothing_but_active_values_depends_on_the_density_of_a_replica(directory):
    """Copies exchange gradients once a step, and these are those of active values."""
    recipe = mesh_recipe(directory, (8, 1, 1), **ROWS)
    target = jax.ShapeDtypeStruct((16, 16), jnp.int32)
    text = programs.train_step(recipe).lower(placed(recipe), target, recipe.rates).compile().as_text()
    assert gathers(text, "f32") == {} and "reduce-scatter" not in text
    summed = re.findall(r"f32\[([\d,]+)\]", "\n".join(re.findall(r"= \((.*?)\) all-reduce", text)))
    biggest = {shape for shape in summed if np.prod([int(n) for n in shape.split(",")]) > 64 * 4}
    assert biggest == {"257,64", "64,257", "2,2,64,16", "2,4,64,16"}


@pytest.mark.parametrize(
    ("shape", "changes"), [((1, 1, 8), {}), pytest.param((1, 8, 1), ROWS, marks=pytest.mark.slow)], ids=str
)
def test_a_rewiring_moves_no_values_between_devices(directory, shape, changes):
    recipe = mesh_recipe(directory, shape, **changes)
    program = programs.rewire_step(recipe).lower(placed(recipe), plan_at(recipe, 10), NO_SCORES).compile()
    text = program.as_text()
    assert gathers(text, "f32") == {} and "reduce-scatter" not in text and "collective-permute" not in text
    # Sums over devices: a number a slot at most, for scores and statistics.
    slots = max(weight.capacity for weight in recipe.sparse.values())
    for shapes in re.findall(r"= (\(.*?\)|\S+) all-reduce", text):
        for axes in re.findall(r"[fs]32\[([\d,]*)\]", shapes):
            assert np.prod([int(n) for n in axes.split(",") if n] or [1]) <= 2 * slots


def settled(directory, shape, devices=8, **changes):
    run = tiny_run(directory, **(WIDTHS | changes))
    replica, fsdp, tensor = shape
    return settle_mesh(
        dataclasses.replace(run, mesh=dataclasses.replace(run.mesh, replica=replica, fsdp=fsdp, tensor=tensor)), devices
    )


def test_fsdp_takes_what_the_other_axes_leave(directory):
    assert settled(directory, (2, 0, 2)).mesh.fsdp == 2
    assert settled(directory, (1, 0, 1), devices=1).mesh.fsdp == 1
    assert settled(directory, (1, 2, 1)).mesh.fsdp == 2


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((3, 0, 1), {}, r"mesh\.replica=3, mesh\.tensor=1: .* does not divide the 8 devices"),
        ((2, 8, 1), {}, r"mesh\.fsdp=8: .*is 16 devices, and there are 8"),
        ((8, 1, 1), {"train_batch_size": 12}, r"mesh\.replica\*fsdp=8: must divide train\.batch_size=12"),
        ((1, 8, 1), {"train_microbatches": 4}, r"train\.microbatches=4: must divide the 2 rows"),
        ((1, 1, 8), {"topology_shards": 4}, r"mesh\.tensor=8: must divide topology\.shards=4; legal: \[1, 2, 4\]"),
        ((1, 1, 8), {"model_kv_heads": 4, "topology_shards": 4}, r"mesh\.tensor=8: must divide model\.kv_heads=4"),
        ((1, 1, 8), {"data_sequence_length": 12}, r"mesh\.tensor=8: must divide data\.sequence_length=12"),
        (
            (1, 8, 1),
            {"topology_storage": "monarch", "topology_drop": "none", "topology_grow": "none"},
            r"Monarch factors are not cut",
        ),
    ],
)
def test_what_does_not_divide_is_refused_in_one_line(directory, shape, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        settled(directory, shape, **changes)
    assert "\n" not in str(error.value)


def test_a_mesh_needs_its_devices(directory):
    run = settled(directory, (1, 8, 1))
    with pytest.raises(ConfigError, match=r"needs 8 devices, and there are 4"):
        make_mesh(run.mesh, jax.devices()[:4])


def test_balanced_columns_that_cannot_be_even_are_refused(directory):
    with pytest.raises(ConfigError, match=r"mesh\.fsdp=8: topology\.balance=column leaves no free slots"):
        mesh_recipe(directory, (1, 8, 1), topology_balance="column", topology_block=(4, 4), topology_density=0.25)


def test_one_program_serves_every_step(directory):
    recipe = mesh_recipe(directory, (2, 2, 2))
    step, state = programs.train_step(recipe), programs.init_state(recipe)
    for number in range(2):
        state, _ = step(state, batch(number), recipe.rates)
    assert step._cache_size() == 1
