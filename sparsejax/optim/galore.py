"""GaLore: Adam on gradients projected to a low rank, for dense weights (Zhao et al., arXiv 2403.03507).

Optax has the method for single matrices; here it runs on stacks of layers. Axes: L layers, K inputs, N outputs, r rank.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from optax.contrib import GaLoreDimensionNumbers, GaLoreState, scale_by_galore

from sparsejax.optim.sparse_adam import SparseAdamState

# Section 5 of the paper; it scales projected weights only, so no learning rate can stand in for it.
_SCALE = 0.25


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
      An optax transformation whose state holds one ``GaLoreState`` around one ``SparseAdamState``.
    """

    def layerwise(tree: Any) -> tuple[optax.GradientTransformation, Any, GaLoreState]:
        stacked = jax.tree.map(lambda leaf: leaf.ndim == 3, tree)
        numbers = jax.tree.map(lambda stack: GaLoreDimensionNumbers() if stack else None, stacked)
        axes = jax.tree.map(lambda stack: 0 if stack else None, stacked)
        # The counts stay one number for all layers: mapped, they would turn the decomposition that is due now and
        # then into one in every update.
        adam_axes = SparseAdamState(None, axes, axes, {})  # type: ignore[arg-type]  # axes instead of arrays
        state_axes = GaLoreState(None, adam_axes, axes)
        return scale_by_galore(rank, every, _SCALE, adam, numbers), axes, state_axes

    def init(params: optax.Params) -> GaLoreState:
        one_layer, axes, state_axes = layerwise(params)
        return jax.vmap(one_layer.init, in_axes=(axes,), out_axes=state_axes)(params)

    def update(
        updates: optax.Updates, state: GaLoreState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, GaLoreState]:
        del params, extra_args
        one_layer, axes, state_axes = layerwise(updates)
        layers = jax.vmap(one_layer.update, in_axes=(axes, state_axes), out_axes=(axes, state_axes))
        return layers(updates, state)

    return optax.GradientTransformationExtraArgs(init, update)


def projections(opt_state: Any) -> list[Any]:
    """The projection matrices inside any optax state, trees with the structure of the parameters; none without GaLore.

    Parameters that are not projected have an array without elements.
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=_is_state)
    return [node.projector for node in nodes if _is_state(node)]


def _is_state(node: Any) -> bool:
    return isinstance(node, GaLoreState)
