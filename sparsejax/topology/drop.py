"""Which blocks go: drop rules as scores, low first, and the blocks a rule lets go at all.

One weight of one layer; axes: n slots, S shares, c = n / S slots of a share. Where a rule looks at magnitudes it
looks at the integers of ``scores.magnitude``, so that every mesh decides alike. Sources: magnitude and sign SET,
Mocanu et al. 2018; taylor Molchanov et al. 2019; soft the code of the repeated-data scaling law.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sparsejax.topology.blocks import BlockGrid, Index, active_mask
from sparsejax.topology.scores import integers, magnitude, magnitude_of
from sparsejax.topology.selection import lowest

_SMALLEST = jnp.iinfo(jnp.int32).min


def scored(
    drop: str,
    values: jax.Array,
    index: Index,
    grid: BlockGrid,
    threshold: float,
    temperature: jax.Array | float,
    taylor_n: jax.Array | None,
    key: jax.Array,
    count: jax.Array | int,
) -> tuple[jax.Array, jax.Array]:
    """Score ``[n]``, low goes first, and the blocks that may go ``[n]`` bool, for ``rewire.choose_drops``.

    Args:
      drop: name of the rule; ``"global_magnitude"`` looks at all weights at once, see ``choose_globally``.
      values: ``[n, bk, bn]``.
      index: the topology.
      grid: the weight's grid.
      threshold: of ``drop="threshold"``.
      temperature: of ``drop="soft"``.
      taylor_n: scores of ``drop="taylor"``, else unused.
      key: of the draw of ``drop="soft"``.
      count: blocks that are to go in each share, a scalar or ``[S]``; for ``drop="sign"``.

    Raises:
      ValueError: an unknown rule, or ``taylor`` without scores.
    """
    everything = jnp.ones(values.shape[:1], bool)
    match drop:
        case "magnitude":
            return magnitude(values), everything
        case "inverse":
            return inverse(values), everything
        case "threshold":
            return magnitude(values), below_threshold(values, threshold)
        case "sign" if grid.balance == "column":
            return sign(values, index, grid), everything
        case "sign":
            return jnp.zeros(values.shape[:1], jnp.int32), nearest_of_each_sign(values, index, grid, count)
        case "soft":
            return soft(values, temperature, key), everything
        case "taylor" if taylor_n is not None:
            # After a loss that is not finite nothing is known: such blocks stay.
            return jnp.where(jnp.isnan(taylor_n), jnp.inf, taylor_n), everything
    raise ValueError(f"drop={drop!r}: unknown drop rule, or its scores are missing")


def taylor(values: jax.Array, gradients: jax.Array) -> jax.Array:
    """``sum (w g)^2`` over every block, ``[n]`` float32: the squared first-order change of the loss without it."""
    return jnp.sum(jnp.square(values.astype(jnp.float32) * gradients.astype(jnp.float32)), axis=(-2, -1))


def inverse(values: jax.Array) -> jax.Array:
    """Minus the magnitude, ``[n]`` int32: the largest blocks go. A sanity check that must lose."""
    return -magnitude(values)


def below_threshold(values: jax.Array, threshold: float) -> jax.Array:
    """Blocks that may go under ``drop="threshold"``: mean ``|w| <= threshold``, ``[n]`` bool."""
    score, unit = magnitude_of(values)
    elements = values.shape[-1] * values.shape[-2]
    if elements == 1:
        return jnp.abs(values.astype(jnp.float32)).reshape(score.shape) <= threshold
    # In the score's own integers; a threshold beyond them lets everything go.
    limit = jnp.minimum(threshold * elements / unit, 2.0**30)
    return score.astype(jnp.float32) <= limit


def sign(values: jax.Array, index: Index, grid: BlockGrid) -> jax.Array:
    """SET's rule, ``[n]`` int32: half of what goes are the smallest positive, half the negative nearest to zero.

    The score of a block is its place among the blocks of its own sign in its share, nearest to zero first; so the
    ``count`` lowest are taken from both signs in turn, and from the other one once a sign is used up. A block's sign
    is that of the sum of its weights; a sum of 0 counts as positive. The published code takes the most negative ones
    instead; this is the rule as the paper states it.
    """
    by_share = _signed(values, grid).reshape(grid.shards, -1)
    active = active_mask(index, grid).reshape(by_share.shape)

    def share(total_c: jax.Array, active_c: jax.Array) -> jax.Array:
        negative = total_c < 0
        places = jnp.arange(total_c.shape[0], dtype=jnp.int32)
        # Free slots last, then by sign, then by distance from zero.
        _, _, _, order = jax.lax.sort((~active_c, negative, jnp.abs(total_c), places), num_keys=4)
        rank = jnp.zeros_like(places).at[order].set(places, unique_indices=True)
        return jnp.where(negative, rank - jnp.sum(active_c & ~negative), rank)

    return jax.vmap(share)(by_share, active).reshape(-1)


def nearest_of_each_sign(values: jax.Array, index: Index, grid: BlockGrid, count: jax.Array | int) -> jax.Array:
    """The ``count`` blocks of each share with the lowest ``sign`` scores, ``[n]`` bool, without ranking them all.

    Half of the count comes from either sign, more from one where the other is used up; of an odd one out the lower
    index goes. Columns that may not lose all that their blocks' scores ask for need the scores.
    """
    by_share = _signed(values, grid).reshape(grid.shards, -1)
    active = active_mask(index, grid).reshape(by_share.shape)
    places = jnp.arange(by_share.shape[1], dtype=jnp.int32)

    def nearest(total_c: jax.Array, of_sign_c: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mask, and the place of the last one chosen."""
        distance_c = jnp.abs(total_c)
        chosen_c = lowest(distance_c, of_sign_c, count)
        furthest = jnp.max(jnp.where(chosen_c, distance_c, -1))
        return chosen_c, jnp.max(jnp.where(chosen_c & (distance_c == furthest), places, -1))

    def share(total_c: jax.Array, active_c: jax.Array, count: jax.Array) -> jax.Array:
        positive_c, negative_c = active_c & (total_c >= 0), active_c & (total_c < 0)
        positives, negatives = (jnp.sum(mask, dtype=jnp.int32) for mask in (positive_c, negative_c))
        count = jnp.minimum(count, positives + negatives)
        half = count // 2
        from_positive = jnp.clip(count - negatives, half, jnp.maximum(positives, half))
        from_negative = jnp.clip(count - positives, half, jnp.maximum(negatives, half))
        from_positive, from_negative = jnp.minimum(from_positive, positives), jnp.minimum(from_negative, negatives)
        # One of the two that come next, where both signs have one.
        odd = count - from_positive - from_negative
        first_c, last_first = nearest(total_c, positive_c, from_positive + odd)
        second_c, last_second = nearest(total_c, negative_c, from_negative + odd)
        too_many_c = (odd > 0) & (places == jnp.maximum(last_first, last_second))
        return (first_c | second_c) & ~too_many_c

    counts_S = jnp.broadcast_to(jnp.asarray(count, jnp.int32), by_share.shape[:1])
    return jax.vmap(share)(by_share, active, counts_S).reshape(-1)


def _signed(values: jax.Array, grid: BlockGrid) -> jax.Array:
    """The sum of every block as an integer with its sign, ``[n]`` int32."""
    if grid.unstructured:
        # The bit pattern of |w| orders like |w| and never ties by rounding.
        return jnp.where(values < 0, -1, 1).reshape(-1) * magnitude(values)
    return jnp.sum(integers(values), axis=(-2, -1), dtype=jnp.int32)


def soft(values: jax.Array, temperature: jax.Array | float, key: jax.Array) -> jax.Array:
    """Score whose highest are a draw without replacement with odds ``|w|^T``, ``[n]`` float32.

    Adding Gumbel noise to ``T log |w|`` and keeping the highest is exactly that draw (Kool et al. 2019), with an
    exact count. A block of zeros goes first.

    Args:
      values: ``[n, bk, bn]`` of one weight.
      temperature: T; 0 draws uniformly among blocks that are not zero.
      key: key of this weight, layer and step.
    """
    score = magnitude(values)
    odds = jnp.log(jnp.maximum(jnp.sum(jnp.abs(values.astype(jnp.float32)), axis=(-2, -1)), 1e-38))
    noise = jax.random.gumbel(key, score.shape, jnp.float32)
    return jnp.where(score > 0, temperature * odds + noise, -jnp.inf)


def choose_globally(
    values: Mapping[str, jax.Array], active: Mapping[str, jax.Array], shards: Mapping[str, int], count: jax.Array
) -> dict[str, jax.Array]:
    """One ranking of the magnitudes of all weights: the ``count`` smallest blocks of them all, as masks ``[L, n]``.

    Every share of every weight keeps its largest block, whatever the ranking says.

    Args:
      values: ``[L, n, bk, bn]`` of every kind; all blocks have one size.
      active: ``[L, n]`` bool of every kind, False for free slots.
      shards: shares of every kind.
      count: how many go in total.
    """
    peak = jnp.max(jnp.stack([jnp.max(jnp.abs(array.astype(jnp.float32))) for array in values.values()]))
    scores, allowed = [], []
    for name, array in values.items():
        score_Ln, _ = magnitude_of(array, peak)
        shape = (score_Ln.shape[0] * shards[name], -1)
        ranked = jnp.where(active[name], score_Ln, _SMALLEST).reshape(shape)
        best = jnp.argmax(ranked, axis=1)[:, None]
        keeps = jnp.arange(ranked.shape[1])[None, :] == best
        scores.append(score_Ln.reshape(-1))
        allowed.append((active[name].reshape(shape) & ~keeps).reshape(-1))
    chosen = lowest(jnp.concatenate(scores), jnp.concatenate(allowed), count)
    masks, start = {}, 0
    for name, mask in active.items():
        masks[name] = chosen[start : start + mask.size].reshape(mask.shape)
        start += mask.size
    return masks
