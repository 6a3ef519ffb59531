"""The topology a run starts from: random, or the best blocks of dense weights, with exact counts.

Axes: S shares, m cells (places for a block) of one share.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.topology import scores
from sparsejax.topology.blocks import BlockGrid, Index, index_from_positions
from sparsejax.topology.selection import lowest, places_of


def random_index(key: jax.Array, grid: BlockGrid, count: int, capacity: int) -> Index:
    """A uniformly random topology with exactly ``count / S`` blocks in each share.

    Published code draws every block independently, so its realised density fluctuates; counts here are exact.
    Under ``balance="column"`` every column of a share gets its static count.

    Args:
      key: key of this weight and layer, see ``keys.weight_key``.
      grid: the weight's grid.
      count: active blocks of the weight, a multiple of the shares.
      capacity: slots of the weight, a multiple of the shares, at least ``count``.

    Raises:
      ValueError: the counts do not divide, do not fit, or leave free slots in a balanced weight.
    """
    check_counts(grid, count, capacity)
    return _index_of_lowest(scores.random(key, grid), grid, count, capacity)


def best_index(score_Sm: jax.Array, grid: BlockGrid, count: int, capacity: int) -> Index:
    """The topology of the ``count / S`` blocks of each share that score highest; ties go to the lower position.

    Under ``balance="column"`` the best of every column stay, as many as the column has. One score a place, so blocks
    compete inside their share of their layer: counts are those of the density table, whatever the weights.

    Args:
      score_Sm: ``[S, m]`` int32, not negative, in the order of positions; see ``scores.of_dense``.
      grid: the weight's grid.
      count: active blocks of the weight, a multiple of the shares.
      capacity: slots of the weight, a multiple of the shares, at least ``count``.

    Raises:
      ValueError: as ``random_index``, or scores of another shape.
    """
    check_counts(grid, count, capacity)
    if score_Sm.shape != (grid.shards, grid.cells_per_share):
        raise ValueError(f"scores of shape {score_Sm.shape}: must be {(grid.shards, grid.cells_per_share)}")
    # The complement turns the order round and, unlike the negative, has no value that overflows.
    return _index_of_lowest(~score_Sm, grid, count, capacity)


def random_mask(key: jax.Array, grid: BlockGrid, count: int) -> jax.Array:
    """The places of ``random_index``, ``[S, m]`` bool, without the index."""
    return _lowest_places(scores.random(key, grid), grid, count)


def _index_of_lowest(score_Sm: jax.Array, grid: BlockGrid, count: int, capacity: int) -> Index:
    active_Sm = _lowest_places(score_Sm, grid, count)
    return index_from_positions(positions_from_mask(active_Sm, capacity // grid.shards), grid)


def _lowest_places(score_Sm: jax.Array, grid: BlockGrid, count: int) -> jax.Array:
    share_count = count // grid.shards
    everywhere = jnp.ones_like(score_Sm, dtype=bool)
    if grid.balance != "column":
        return jax.vmap(lowest, in_axes=(0, 0, None))(score_Sm, everywhere, share_count)
    by_column = (grid.shards, grid.share_columns, grid.share_rows)
    wanted = jnp.asarray(grid.column_counts(share_count))
    pick = jax.vmap(jax.vmap(lowest), in_axes=(0, 0, None))
    return pick(score_Sm.reshape(by_column), everywhere.reshape(by_column), wanted).reshape(score_Sm.shape)


def positions_from_mask(active_Sm: jax.Array, capacity: int) -> jax.Array:
    """Ascending positions of the active cells of each share, ``[S, capacity]`` int32, free slots filled with m."""
    return jax.vmap(lambda active_m: places_of(active_m, capacity))(active_Sm)


def check_counts(grid: BlockGrid, count: int, capacity: int) -> None:
    """Raise ``ValueError`` unless ``count`` blocks in ``capacity`` slots are possible on ``grid``."""
    if count % grid.shards or capacity % grid.shards:
        raise ValueError(f"count={count}, capacity={capacity}: both must be multiples of shards={grid.shards}")
    if not grid.shards <= count <= grid.cells or not count <= capacity:
        raise ValueError(f"count={count}: must be between {grid.shards} and {grid.cells}, and at most {capacity}")
    if grid.balance == "column" and capacity != count:
        raise ValueError(f"capacity={capacity}: balance='column' has no free slots, capacity must be {count}")
