"""GaLore: Adam on gradients projected to a low rank, for dense weights (Zhao et al., arXiv 2403.03507).

Optax has the method for single matrices; here it runs on stacks of layers. Axes: L layers, K inputs, N outputs, r rank.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import GaLoreDimensionNumbers, GaLoreState, scale_by_galore

from sparsejax.optim.sparse_adam import SparseAdamState

# Section 5 of the paper; it scales projected weights only, so no learning rate can stand in for it.
_SCALE = 0.25


class StackedGaloreState(NamedTuple):
    """State of ``scale_by_stacked_galore``.

    Attributes:
      adam: state of Adam on the projected gradients; its moments are as small as these.
      projections: for the path of every projected leaf ``[L, max(K, N), r]``. Others have no entry: checkpoints refuse
        the arrays without elements that Optax keeps for them.
    """

    adam: SparseAdamState
    projections: dict[str, jax.Array]


def scale_by_stacked_galore(
    adam: optax.GradientTransformationExtraArgs, rank: int, every: int
) -> optax.GradientTransformationExtraArgs:
    """Run ``adam`` on low-rank projections of the gradients of all stacked matrices, and project its result back.

    Leaves with three axes, ``[L, K, N]``, are stacks of matrices, and every layer is projected alone: with P the r
    leading singular vectors of its gradient at the last projection, on the side of its longer axis, the direction is
    ``0.25 P adam(P^T G)`` (transposed where N is longer). All other leaves go through ``adam`` as they are. Moments
    are therefore ``[L, r, min(K, N)]`` and projections ``[L, max(K, N), r]``: Optax projects the longer axis, which
    stores less than the paper's shorter one.

    Args:
      adam: ``scale_by_sparse_adam`` with all densities 1.
      rank: r, at least 1; capped at the shorter axis.
      every: updates between new projections, each a singular value decomposition of every layer's gradient.

    Returns:
      An optax transformation with a ``StackedGaloreState``.
    """

    def layerwise(tree: Any) -> tuple[optax.GradientTransformation, Any, GaLoreState]:
        numbers = jax.tree.map(lambda leaf: GaLoreDimensionNumbers() if _is_stack(leaf) else None, tree)
        axes = jax.tree.map(lambda leaf: 0 if _is_stack(leaf) else None, tree)
        # The counts stay one number for all layers: mapped, they would turn the decomposition that is due now and
        # then into one in every update.
        adam_axes = SparseAdamState(None, axes, axes, {})  # type: ignore[arg-type]  # axes instead of arrays
        return scale_by_galore(rank, every, _SCALE, adam, numbers), axes, GaLoreState(None, adam_axes, axes)

    def init(params: optax.Params) -> StackedGaloreState:
        one_layer, axes, state_axes = layerwise(params)
        state = jax.vmap(one_layer.init, in_axes=(axes,), out_axes=state_axes)(params)
        return _stored(state, params)

    def update(
        updates: optax.Updates, state: StackedGaloreState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, StackedGaloreState]:
        del params, extra_args
        one_layer, axes, state_axes = layerwise(updates)
        layers = jax.vmap(one_layer.update, in_axes=(axes, state_axes), out_axes=(axes, state_axes))
        directions, new_state = layers(updates, _restored(state, updates))
        return directions, _stored(new_state, updates)

    return optax.GradientTransformationExtraArgs(init, update)


def projections(opt_state: Any) -> dict[str, jax.Array]:
    """The projection matrices inside any optax state, by path; empty without GaLore."""
    nodes = jax.tree.leaves(opt_state, is_leaf=_is_state)
    return {path: array for node in nodes if _is_state(node) for path, array in node.projections.items()}


def _stored(state: GaLoreState, tree: Any) -> StackedGaloreState:
    found = zip(jax.tree_util.tree_leaves_with_path(state.projector), jax.tree.leaves(tree), strict=True)
    projected = {_join(path): array for (path, array), leaf in found if _is_stack(leaf)}
    return StackedGaloreState(state.base_optimizer_state, projected)


def _restored(state: StackedGaloreState, tree: Any) -> GaLoreState:
    """Optax's state, which counts as Adam does and has an array without elements where nothing is projected."""

    def projector(path: Any, leaf: jax.Array) -> jax.Array:
        return state.projections[_join(path)] if _is_stack(leaf) else jnp.zeros((0, 0), leaf.dtype)

    return GaLoreState(state.adam.count, state.adam, jax.tree_util.tree_map_with_path(projector, tree))


def _is_stack(leaf: jax.Array) -> bool:
    return leaf.ndim == 3


def _is_state(node: Any) -> bool:
    return isinstance(node, StackedGaloreState)


def _join(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
