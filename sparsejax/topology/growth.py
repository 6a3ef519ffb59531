"""Which blocks come: growth rules, from gradient scores and a random draw to one order of places.

One weight of one layer; axes: S shares, m cells of a share. A gradient score is ``sum |dL/dW|`` over the block,
active or not, of the gradient of a whole batch (RigL, Evci et al. 2020). Every rule gives an exact count.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sparsejax.topology.blocks import BlockGrid
from sparsejax.topology.selection import lowest, order_keys

# Rules that look at gradients, and those of them that remember more than one step.
SCORED = ("gradient", "gradient_sum", "momentum", "momentum_neuron", "mix")
REMEMBERING = ("gradient_sum", "momentum", "momentum_neuron")
# grow="gradient_sum" looks at this many times the places it fills.
_CANDIDATES = 2
# The first gradient where there was none yet; scores are not negative.
_NONE_YET = -1.0


def no_memory(grow: str, layers: int, grid: BlockGrid) -> jax.Array:
    """The memory of a rule before its first scored step, float32.

    One number a place, ``[L, S, m]``. ``gradient_sum`` keeps two, ``[L, S, 2, m]``: the first gradient since the last
    rewiring, and the sum of all since.
    """
    numbers = (2,) if grow == "gradient_sum" else ()
    return forget(grow, jnp.zeros((layers, grid.shards, *numbers, grid.cells_per_share), jnp.float32))


def remember(grow: str, memory: jax.Array, fresh: jax.Array, decay: float) -> jax.Array:
    """The memory of a rule after one more scored step, the shape of ``memory``.

    ``gradient_sum`` adds up, and keeps the first score; ``momentum`` and ``momentum_neuron`` keep ``decay * memory +
    (1 - decay) * fresh`` (sparse momentum, Dettmers and Zettlemoyer 2019: packed moments do not exist where no block
    is, so what is averaged is one score per place).

    Args:
      grow: name of the rule.
      memory: from ``no_memory``.
      fresh: ``[..., S, m]`` float32, the scores of this step.
      decay: of the moving averages.
    """
    if grow != "gradient_sum":
        return decay * memory + (1 - decay) * fresh
    first, summed = memory[..., 0, :], memory[..., 1, :]
    return jnp.stack([jnp.where(first == _NONE_YET, fresh, first), summed + fresh], axis=-2)


def from_sums(summed: jax.Array) -> jax.Array:
    """A memory of ``gradient_sum`` from sums ``[..., m]`` alone, which stand for the first gradients too."""
    first = jnp.where(jnp.any(summed != 0), summed, _NONE_YET)
    return jnp.stack([first, summed], axis=-2)


def forget(grow: str, memory: jax.Array) -> jax.Array:
    """The memory after a rewiring: sums start again, moving averages go on."""
    if grow != "gradient_sum":
        return memory
    return jnp.zeros_like(memory).at[..., 0, :].set(_NONE_YET)


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
    """Growth score ``[S, m]`` int32 for ``rewire.regrow``: the rule's places first, ties to the lower index.

    - ``random``: the draw. ``gradient``, ``momentum``: the gradient score (or its memory).
    - ``gradient_sum``: candidates are the ``2 * count`` places with the highest first gradient since the last rewiring;
      of them the highest sums grow, and where a balanced column has too few of them, the highest sums of the others.
    - ``mix``: the ``by_gradient`` highest gradient scores, then the draw among the others. (The published code draws
      the others independently, which misses the count.)
    - ``momentum_neuron``: each output column of blocks gets ``count`` times its mean score over the sum of all means,
      rounded down, no more than its candidates; the rest goes to the highest scores left. (The published code drops
      small shares; counts here are exact.)

    Args:
      grow: name of the rule.
      grid: the weight's grid.
      candidate_Sm: bool, where a block may come.
      gradient_Sm: float32 scores, not negative, or the rule's memory of them (``[S, 2, m]`` for ``gradient_sum``);
        random growth ignores it. NaN counts as lowest.
      random_Sm: int32, non-negative, from ``scores.random``.
      count: blocks to grow in each share, traced, a scalar or ``[S]``.
      by_gradient: ``mix`` only: how many of them by gradient.

    Raises:
      ValueError: an unknown rule.
    """
    gradient_Sm = jnp.where(jnp.isnan(gradient_Sm), -jnp.inf, gradient_Sm)
    counts_S = jnp.broadcast_to(jnp.asarray(count, jnp.int32), candidate_Sm.shape[:1])

    def highest(score_Sm: jax.Array, wanted: jax.Array) -> jax.Array:
        wanted_S = jnp.broadcast_to(wanted, counts_S.shape)
        return jax.vmap(lowest)(-score_Sm, candidate_Sm, wanted_S)

    match grow:
        case "random":
            return random_Sm
        case "gradient" | "momentum":
            return _whole(gradient_Sm)
        case "gradient_sum":
            first_Sm, summed_Sm = gradient_Sm[:, 0], gradient_Sm[:, 1]
            return _ranked(highest(first_Sm, _CANDIDATES * counts_S), _whole(summed_Sm))
        case "mix":
            return _ranked(highest(gradient_Sm, by_gradient), random_Sm)
        case "momentum_neuron":
            first_Sm = jax.vmap(lambda c, g, n: _by_column(grid, c, g, n))(candidate_Sm, gradient_Sm, counts_S)
            return _ranked(first_Sm, _whole(gradient_Sm))
    raise ValueError(f"grow={grow!r}: unknown growth rule")


def _whole(score: jax.Array) -> jax.Array:
    """Integers that order as scores that are not negative do, int32 from 0; 0 for all that is below 0."""
    above = order_keys(score) - order_keys(jnp.zeros((), score.dtype))
    return jnp.where(score >= 0, above.astype(jnp.int32) + 1, 0)


def _ranked(first: jax.Array, score: jax.Array) -> jax.Array:
    """Int32 scores that put the places of ``first`` before the others, each by ``score``, which is not negative."""
    return jnp.where(first, score, score + jnp.iinfo(jnp.int32).min)


def _by_column(grid: BlockGrid, candidate_m: jax.Array, score_m: jax.Array, count: jax.Array) -> jax.Array:
    """``[m]`` bool: every column's whole part of ``count``, given to its highest-scored candidates."""
    by_column = (grid.share_columns, grid.share_rows)
    finite_m = jnp.maximum(score_m, 0.0)
    mean_C = jnp.mean(finite_m.reshape(by_column), axis=1)
    part_C = jnp.floor(count * mean_C / jnp.maximum(jnp.sum(mean_C), 1e-38)).astype(jnp.int32)
    pick = jax.vmap(lowest)
    return pick(-score_m.reshape(by_column), candidate_m.reshape(by_column), part_C).reshape(-1)
