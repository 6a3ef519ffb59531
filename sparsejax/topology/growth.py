"""Which blocks come: growth rules, from gradient scores and a random draw to one order of places.

One weight of one layer; axes: S shares, m cells of a share. A gradient score is ``sum |dL/dW|`` over the block,
active or not, of the gradient of a whole batch (RigL, Evci et al. 2020). Every rule gives an exact count.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sparsejax.topology.blocks import BlockGrid
from sparsejax.topology.scores import lowest

# Rules that look at gradients, and those of them that remember more than one step.
SCORED = ("gradient", "gradient_sum", "momentum", "momentum_neuron", "mix")
REMEMBERING = ("gradient_sum", "momentum", "momentum_neuron")
# grow="gradient_sum" draws from this many times the places it fills.
_CANDIDATES = 2


def remember(grow: str, memory: jax.Array, fresh: jax.Array, decay: float) -> jax.Array:
    """The memory of a rule after one more scored step, any shape, float32.

    ``gradient_sum`` adds up; ``momentum`` and ``momentum_neuron`` keep ``decay * memory + (1 - decay) * fresh`` (sparse
    momentum, Dettmers and Zettlemoyer 2019: packed moments do not exist where no block is, so what is averaged is
    one score per place).
    """
    return memory + fresh if grow == "gradient_sum" else decay * memory + (1 - decay) * fresh


def forget(grow: str, memory: jax.Array) -> jax.Array:
    """The memory after a rewiring: sums start again, moving averages go on."""
    return jnp.zeros_like(memory) if grow == "gradient_sum" else memory


def mixed_count(count: int, mix: float) -> int:
    """How many of ``count`` places ``grow="mix"`` fills by gradient, on the host: ``int(count * mix)``."""
    return int(count * mix)


def fill_up(wanted: Mapping[str, jax.Array], room: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Counts that sum to all that is ``wanted`` where single places cannot take their part, int32.

    Everyone takes what it wants or has room for; what is left over goes to those with room, in order. The total is
    exact as long as the room of all together suffices.

    Args:
      wanted: blocks of each kind, layer and share; any shapes, int32.
      room: places for them, the same shapes, non-negative.
    """
    sizes = [array.size for array in wanted.values()]
    wanted_A = jnp.concatenate([array.reshape(-1) for array in wanted.values()])
    room_A = jnp.concatenate([array.reshape(-1) for array in room.values()])
    taken_A = jnp.minimum(wanted_A, room_A)
    spare_A = room_A - taken_A
    left = jnp.sum(wanted_A) - jnp.sum(taken_A)
    before_A = jnp.cumsum(spare_A) - spare_A
    taken_A += jnp.clip(left - before_A, 0, spare_A)
    parts = jnp.split(taken_A, [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)])
    return {name: part.reshape(wanted[name].shape) for name, part in zip(wanted, parts, strict=True)}


def order(
    grow: str,
    grid: BlockGrid,
    candidate_Sm: jax.Array,
    gradient_Sm: jax.Array,
    random_Sm: jax.Array,
    count: jax.Array,
    by_gradient: jax.Array,
) -> jax.Array:
    """Growth score ``[S, m]`` int32 for ``rewire.regrow``: the rule's places first, all different.

    - ``random``: the draw. ``gradient``, ``momentum``: the gradient score (or its memory).
    - ``gradient_sum``: the draw among the ``2 * count`` candidates with the highest summed scores.
    - ``mix``: the ``by_gradient`` highest gradient scores, then the draw among the others. (The published code draws
      the others independently, which misses the count.)
    - ``momentum_neuron``: each output column of blocks gets ``count`` times its mean score over the sum of all means,
      rounded down, no more than its candidates; the rest goes to the highest scores left. (The published code drops
      small shares; counts here are exact.)

    Args:
      grow: name of the rule.
      grid: the weight's grid.
      candidate_Sm: bool, where a block may come.
      gradient_Sm: float32 scores, or the rule's memory of them; random growth ignores it. NaN counts as lowest.
      random_Sm: int32, non-negative, from ``scores.random``.
      count: blocks to grow in each share, traced, a scalar or ``[S]``.
      by_gradient: ``mix`` only: how many of them by gradient.

    Raises:
      ValueError: an unknown rule.
    """
    gradient_Sm = jnp.where(jnp.isnan(gradient_Sm), -jnp.inf, gradient_Sm)
    nowhere_Sm = jnp.zeros_like(candidate_Sm)
    counts_S = jnp.broadcast_to(jnp.asarray(count, jnp.int32), candidate_Sm.shape[:1])

    def highest(wanted: jax.Array) -> jax.Array:
        wanted_S = jnp.broadcast_to(wanted, counts_S.shape)
        return jax.vmap(lowest)(-gradient_Sm, candidate_Sm, wanted_S)

    match grow:
        case "random":
            return _ranked(nowhere_Sm, random_Sm)
        case "gradient" | "momentum":
            return _ranked(nowhere_Sm, gradient_Sm)
        case "gradient_sum":
            return _ranked(highest(_CANDIDATES * counts_S), random_Sm)
        case "mix":
            return _ranked(highest(by_gradient), random_Sm)
        case "momentum_neuron":
            first_Sm = jax.vmap(lambda c, g, n: _by_column(grid, c, g, n))(candidate_Sm, gradient_Sm, counts_S)
            return _ranked(first_Sm, gradient_Sm)
    raise ValueError(f"grow={grow!r}: unknown growth rule")


def _ranked(first_Sm: jax.Array, score_Sm: jax.Array) -> jax.Array:
    """Places in order, as int32 scores from m down to 1: those of ``first_Sm`` first, then by score, then by index."""
    places_m = jnp.arange(score_Sm.shape[1], dtype=jnp.int32)

    def share(first_m: jax.Array, score_m: jax.Array) -> jax.Array:
        _, _, in_order = jax.lax.sort((~first_m, -score_m, places_m), num_keys=3)
        return jnp.zeros_like(places_m).at[in_order].set(places_m.shape[0] - places_m, unique_indices=True)

    return jax.vmap(share)(first_Sm, score_Sm)


def _by_column(grid: BlockGrid, candidate_m: jax.Array, score_m: jax.Array, count: jax.Array) -> jax.Array:
    """``[m]`` bool: every column's whole part of ``count``, given to its highest-scored candidates."""
    by_column = (grid.share_columns, grid.share_rows)
    finite_m = jnp.maximum(score_m, 0.0)
    mean_C = jnp.mean(finite_m.reshape(by_column), axis=1)
    part_C = jnp.floor(count * mean_C / jnp.maximum(jnp.sum(mean_C), 1e-38)).astype(jnp.int32)
    pick = jax.vmap(lowest)
    return pick(-score_m.reshape(by_column), candidate_m.reshape(by_column), part_C).reshape(-1)
