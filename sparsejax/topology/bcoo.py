"""To and from ``jax.experimental.sparse.BCOO``, JAX's own coordinate format.

BCOO keeps one (row, column) pair an element, so a block of bk x bn becomes bk * bn entries and the index grows
to two integers a value: it is a format for interchange and inspection, not for training.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO

from sparsejax.topology.blocks import BlockGrid, BlockSparse, Index, coordinates, from_dense, index_from_mask


def element_coordinates(index: Index, grid: BlockGrid) -> jax.Array:
    """Element coordinates of the values in slot order, ``[n * bk * bn, 2]`` int32; free slots hold ``(K, N)``.

    ``(K, N)`` lies outside the matrix, which is how BCOO marks padding.
    """
    rows, cols = coordinates(index, grid)
    (bk, bn), (K, N) = grid.block, grid.shape
    free = (cols >= grid.columns)[:, None, None]
    row = rows[:, None, None] * bk + jnp.arange(bk, dtype=jnp.int32)[:, None]
    col = cols[:, None, None] * bn + jnp.arange(bn, dtype=jnp.int32)
    shape = (rows.shape[0], bk, bn)
    row = jnp.where(free, K, jnp.broadcast_to(row, shape))
    col = jnp.where(free, N, jnp.broadcast_to(col, shape))
    return jnp.stack([row.reshape(-1), col.reshape(-1)], axis=1)


def to_bcoo(weight: BlockSparse) -> BCOO:
    """The weight as a BCOO matrix ``[K, N]`` with one entry an element, in slot order."""
    indices = element_coordinates(weight.index, weight.grid)
    return BCOO((weight.values.reshape(-1), indices), shape=weight.grid.shape, unique_indices=True)


def from_bcoo(matrix: BCOO, grid: BlockGrid, capacity: int) -> BlockSparse:
    """The weight whose active blocks are those with an entry in ``matrix`` (on the host).

    A block is active if the matrix stores any of its elements, even a zero; elements it does not store are 0.

    Args:
      matrix: ``[K, N]`` BCOO without batch or dense axes; repeated coordinates add up.
      grid: the grid to cut it into.
      capacity: number of slots, at least the number of active blocks of the fullest share times S.

    Raises:
      ValueError: the shapes differ, the matrix has batch or dense axes, or a share overflows.
    """
    if matrix.shape != grid.shape or matrix.n_batch or matrix.n_dense:
        raise ValueError(
            f"BCOO of shape {matrix.shape} with {matrix.n_batch} batch and {matrix.n_dense} dense axes: "
            f"must be a plain {grid.shape}"
        )
    row, col = np.asarray(matrix.indices).T
    stored = (row < grid.shape[0]) & (col < grid.shape[1])
    mask = np.zeros((grid.rows, grid.columns), bool)
    mask[row[stored] // grid.block[0], col[stored] // grid.block[1]] = True
    return from_dense(matrix.todense(), index_from_mask(mask, grid, capacity), grid)
