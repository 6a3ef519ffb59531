"""Where every array of a run lives on its mesh: one ordered table of path patterns, and what follows from it.

A path is that of the leaf in ``TrainState``, for example ``params/layers/mlp/up/values``; the moments of a parameter
have its path behind their own, ``opt_state/1/mu/layers/mlp/up/values``, and live where it lives. The first pattern that
is found in a path counts, and a path without one is an error.
"""

from __future__ import annotations

import re
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from sparsejax.models.parallel import FSDP, REPLICA, TENSOR
from sparsejax.models.weight_table import SparseWeight
from sparsejax.training.recipe import Recipe
from sparsejax.training.state import TrainState

Axis = str | tuple[str, ...] | None

# Resolved weight by weight: the devices of the fsdp axis cut either the rows in a block or the slots of a share.
_SLOTS, _ROWS = "slots", "rows"

# Pattern -> mesh axes of the array's axes; those not named are whole on every device. L is the layer axis.
RULES: tuple[tuple[str, tuple[Axis, ...]], ...] = (
    # Galore's projected moments and their projections are small, and no axis of them is one of the weight.
    (r"^opt_state/.*/(projections|adam/mu|adam/nu)/layers/.*/kernel$", ()),
    (r"^opt_state/.*/ages/", (None, _SLOTS)),  # [L, n]
    (r"/values$", (None, _SLOTS, _ROWS)),  # [L, n, bk, bn]
    (r"/(q|k|v|gate|up)/kernel$", (None, FSDP, TENSOR)),  # [L, K, N]
    (r"/(o|down)/kernel$", (None, TENSOR, FSDP)),
    (r"/(first|second)$", ()),  # Monarch factors: only replicas
    (r"/scale$", ()),
    (r"/embedding$", (None, (FSDP, TENSOR))),  # [V, D]
    (r"/head/kernel$", ((FSDP, TENSOR),)),  # [D, V]
    (r"/(rows|cols|column_pointers|row_pointers|row_order)$", (None, TENSOR)),  # [L, n] or [L, S, ...]
    (r"/flat$", (None, _SLOTS)),  # [L, n]: as large as the values
    (r"/(used|faded)$", ()),
    (r"^scores/", (None, TENSOR)),  # [L, S, m] or [L, S, 2, m]
    (r"^explored/", ()),  # a bit a place
    (r"(^|/)(step|skipped|skipped_in_row|count)$", ()),
)

# Where replicas train apart these lead with an axis of replicas.
_OWN = re.compile(r"^(outer/|opt_state/|skipped)")


def spec_of(path: str, weights: dict[str, SparseWeight]) -> PartitionSpec:
    """Mesh axes of the array at a path of ``TrainState``.

    Args:
      path: its keys joined by '/'.
      weights: the sparse kinds of the run.

    Raises:
      KeyError: no pattern of ``RULES`` is found in the path.
    """
    axes = next((axes for pattern, axes in RULES if re.search(pattern, path)), None)
    if axes is None:
        raise KeyError(f"{path}: no rule of training/sharding.py says where it lives")
    slots, rows = _cut(path, weights)
    return PartitionSpec(*(slots if axis == _SLOTS else rows if axis == _ROWS else axis for axis in axes))


def _cut(path: str, weights: dict[str, SparseWeight]) -> tuple[Axis, Axis]:
    """Mesh axes of the slots and of the rows in a block, for a path below ``layers/<room>/<kind>/``."""
    found = re.search(r"layers/(\w+)/(\w+)/", path)
    name = f"{found[1]}.{found[2]}" if found else ""
    if name in weights and weights[name].cut == "slots":
        return (TENSOR, FSDP), None
    return TENSOR, FSDP


def axis_names(axis: Axis) -> tuple[str, ...]:
    """The mesh axes in one entry of a ``PartitionSpec``."""
    return (axis,) if isinstance(axis, str) else axis or ()


def specs(recipe: Recipe, tree: Any, prefix: str = "") -> Any:
    """``PartitionSpec`` of every leaf of a part of ``TrainState``; ``prefix`` is the path of the part, as "params/"."""
    weights = recipe.sparse

    def spec(path: Any, _: Any) -> PartitionSpec:
        joined = prefix + jax.tree_util.keystr(path, simple=True, separator="/")
        found = spec_of(joined, weights)
        return PartitionSpec(REPLICA, *found) if recipe.replicas > 1 and _OWN.match(joined) else found

    return jax.tree_util.tree_map_with_path(spec, tree)


def state_shardings(recipe: Recipe) -> TrainState:
    """``NamedSharding`` of every array of the state, on the recipe's mesh."""
    return shardings(recipe, specs(recipe, recipe.abstract))


def shardings(recipe: Recipe, tree_of_specs: Any) -> Any:
    """The ``PartitionSpec`` leaves of a tree as shardings on the recipe's mesh."""
    mesh = recipe.mesh
    assert mesh is not None, "one device has no mesh"
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec), tree_of_specs, is_leaf=lambda node: isinstance(node, PartitionSpec)
    )


BATCH = PartitionSpec((REPLICA, FSDP))


def batch_sharding(recipe: Recipe) -> NamedSharding:
    """Where the rows of a batch ``[B, T]`` go: over replica and fsdp, copied along tensor."""
    return shardings(recipe, BATCH)


def placed(recipe: Recipe) -> TrainState:
    """``recipe.abstract`` with shardings: what a checkpoint is restored into, and what a program is lowered for."""
    if recipe.mesh is None:
        state: TrainState = on_first_device(recipe.abstract)
        return state
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        recipe.abstract,
        state_shardings(recipe),
    )


def on_first_device(abstract: Any) -> Any:
    """Shapes and dtypes placed on the first device that JAX has."""
    alone = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=alone), abstract)
