"""The arrays of a trained run as inference wants them: what training keeps for its own sake is settled once.

Axes: L layers, K input width, N output width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sparsejax.models.functional import Tree
from sparsejax.models.masked_linear import masked_kernel
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology.blocks import BlockIndex, BlockSparse, FlatIndex, Index, to_dense
from sparsejax.topology.nm import NmPattern

# Norms are computed in float32 whatever the compute dtype, so their scales stay.
_FLOAT32 = "scale"


def frozen(
    weights: Mapping[str, SparseWeight], params: Tree, topology: Tree, dtype: DTypeLike, dense: Collection[str] = ()
) -> tuple[dict[str, SparseWeight], Tree, Tree]:
    """Density table, params and topology of the same function with nothing left to be done in every step.

    N:M weights become plain kernels with their masks applied, and so do the weights stored as blocks that ``dense``
    names: those that no product of the device would read block by block, so that they would be made dense for every
    token. All weights but norm scales are cast to ``dtype``, in which they are multiplied anyway: a token then reads
    half as many bytes in bfloat16. The function stays what it was.
    """
    changed = {
        name: weight for name, weight in weights.items() if isinstance(weight.structure, NmPattern) or name in dense
    }
    params, topology = jax.jit(partial(_settled, changed, jnp.dtype(dtype)))(params, topology)
    plain = {
        name: dataclasses.replace(
            weight, count=weight.grid.cells, capacity=weight.grid.cells, structure=None, shrinks=False
        )
        for name, weight in changed.items()
    }
    return {**weights, **plain}, params, topology


def _settled(changed: Mapping[str, SparseWeight], dtype: jnp.dtype, params: Tree, topology: Tree) -> tuple[Tree, Tree]:
    for name, weight in changed.items():
        room, kind = name.split(".")
        indexed = weight.packed or (isinstance(weight.structure, NmPattern) and weight.structure.flow != "none")
        index = topology["layers"][room][kind] if indexed else {}
        kernel = jax.lax.map(partial(_kernel, weight), (params["layers"][room][kind], index))
        params = _with(params, ("layers", room, kind), {"kernel": kernel})
        if indexed:
            topology = _without(topology, ("layers", room, kind))

    def cast(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return leaf if path[-1].key == _FLOAT32 else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, params), topology


def _kernel(weight: SparseWeight, layer: tuple[Tree, Tree]) -> jax.Array:
    """The matrix ``[K, N]`` of one layer, from its arrays and its index or state of flow."""
    leaves, index = layer
    if isinstance(weight.structure, NmPattern):
        flow = index or {"used": weight.structure.used, "faded": 0.0}
        return masked_kernel(leaves["kernel"], flow["used"], flow["faded"], weight.structure.group)
    places: Index = FlatIndex(**index) if weight.grid.unstructured else BlockIndex(**index)
    return to_dense(BlockSparse(leaves["values"], places, weight.grid))


def _with(tree: Tree, path: tuple[str, ...], branch: Tree) -> Tree:
    """The tree with another branch."""
    first, *rest = path
    return tree | {first: _with(tree[first], tuple(rest), branch) if rest else branch}


def _without(tree: Tree, path: tuple[str, ...]) -> Tree:
    """The tree without a branch, and without what that leaves empty."""
    first, *rest = path
    inner = _without(tree[first], tuple(rest)) if rest else {}
    others = {key: value for key, value in tree.items() if key != first}
    return others | {first: inner} if inner else others
