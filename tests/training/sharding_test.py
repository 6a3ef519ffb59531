"""Where every array of a run lives: the whole tree as a table, for both ways of cutting blocks and for dense ones."""

import math

import jax
import pytest
from jax.sharding import PartitionSpec as P

from sparsejax.training.sharding import axis_names, spec_of, specs
from tests.training.meshes import mesh_recipe

# Layer axis first; a parameter's gradients and moments live where it lives.
INDICES = {
    "cols": P(None, "tensor"),
    "column_pointers": P(None, "tensor"),
    "row_order": P(None, "tensor"),
    "row_pointers": P(None, "tensor"),
    "rows": P(None, "tensor"),
}
OUTSIDE = {
    "embed/embedding": P(None, ("fsdp", "tensor")),
    "head/kernel": P(("fsdp", "tensor")),
    "layers/attention_norm/scale": P(),
    "layers/mlp_norm/scale": P(),
    "norm/scale": P(),
}
KINDS = ("attention/q", "attention/k", "attention/v", "attention/o", "mlp/gate", "mlp/up", "mlp/down")
BY_ROWS = P(None, "tensor", "fsdp")
BY_SLOTS = P(None, ("tensor", "fsdp"), None)
COUNTS = {"step": P(), "skipped": P(), "skipped_in_row": P(), "opt_state/1/count": P()}


def table(recipe):
    leaves = jax.tree_util.tree_leaves_with_path(
        specs(recipe, recipe.abstract), is_leaf=lambda node: isinstance(node, P)
    )
    return {jax.tree_util.keystr(path, simple=True, separator="/"): spec for path, spec in leaves}


def with_moments(parameters):
    trees = ("params", "opt_state/1/mu", "opt_state/1/nu")
    return {f"{tree}/{path}": spec for tree in trees for path, spec in parameters.items()}


@pytest.mark.parametrize(
    ("changes", "values", "ages"),
    [
        # Eight rows of a block for each of two devices: a full tile.
        ({"topology_block": (16, 4), "topology_shards": 2}, BY_ROWS, P(None, "tensor")),
        ({"topology_block": (4, 4)}, BY_SLOTS, P(None, ("tensor", "fsdp"))),
    ],
    ids=["rows", "slots"],
)
def test_every_array_of_a_sparse_run(tmp_path, changes, values, ages):
    recipe = mesh_recipe(tmp_path, (2, 2, 2), **changes)
    wanted = with_moments(OUTSIDE | {f"layers/{kind}/values": values for kind in KINDS})
    wanted |= {f"opt_state/1/ages/layers/{kind}/values": ages for kind in KINDS}
    wanted |= {f"topology/layers/{kind}/{name}": spec for kind in KINDS for name, spec in INDICES.items()}
    wanted |= {f"explored/{kind.replace('/', '.')}": P() for kind in KINDS}
    assert table(recipe) == wanted | COUNTS


def test_every_array_of_a_dense_run(tmp_path):
    dense = {"topology_density": 1.0, "topology_drop": "none", "topology_grow": "none", "optim_form": "naive"}
    recipe = mesh_recipe(tmp_path, (2, 2, 2), **dense)
    kernels = {
        f"layers/{kind}/kernel": P(None, "tensor", "fsdp")
        if kind in ("attention/o", "mlp/down")
        else P(None, "fsdp", "tensor")
        for kind in KINDS
    }
    assert table(recipe) == with_moments(OUTSIDE | kernels) | COUNTS


def test_flat_indices_and_scores_are_cut_like_the_slots_they_belong_to(tmp_path):
    recipe = mesh_recipe(tmp_path, (1, 4, 2), topology_block=(1, 1), topology_grow="momentum")
    found = table(recipe)
    assert found["topology/layers/mlp/up/flat"] == P(None, ("tensor", "fsdp"))
    assert found["scores/mlp.up"] == P(None, "tensor")


def test_every_part_of_an_array_is_even(tmp_path):
    recipe = mesh_recipe(tmp_path, (1, 4, 2), topology_block=(4, 4), topology_density=0.3)
    leaves = zip(
        jax.tree.leaves(recipe.abstract),
        jax.tree.leaves(specs(recipe, recipe.abstract), is_leaf=lambda node: isinstance(node, P)),
        strict=True,
    )
    for leaf, spec in leaves:
        part = jax.sharding.NamedSharding(recipe.mesh, spec).shard_shape(leaf.shape)
        devices = math.prod(recipe.mesh.shape[name] for axis in spec for name in axis_names(axis))
        assert math.prod(part) * devices == leaf.size


def test_an_array_without_a_rule_is_an_error():
    with pytest.raises(KeyError, match=r"params/layers/mlp/bias: no rule"):
        spec_of("params/layers/mlp/bias", {})
