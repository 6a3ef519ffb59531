"""From the dense weights of one kind to its blocks: which stay, and what they hold.

Axes: L layers, K input width, N output width.
"""

from __future__ import annotations

import dataclasses

import jax

from sparsejax.topology import scores
from sparsejax.topology.blocks import BlockGrid, gather_blocks
from sparsejax.topology.initial import best_index
from sparsejax.training.state import Tree


def cut(
    grid: BlockGrid, count: int, capacity: int, kernel_LKN: jax.Array, norm_LK: jax.Array | None
) -> tuple[Tree, Tree]:
    """Parameters and topology of one sparse kind that keeps the best blocks of its dense weights, bit for bit.

    Every layer has the count of the density table; which blocks it keeps is said by ``scores.of_dense`` and
    ``initial.best_index``. One layer is made after another, so beside the arguments and the results there is never
    more than a layer.

    Args:
      grid: of the kind.
      count: blocks that every layer keeps.
      capacity: slots of every layer.
      kernel_LKN: dense weights, float32.
      norm_LK: norms of the inputs; None scores by magnitude alone.

    Returns:
      ``{"values": [L, n, bk, bn]}`` and the stacked index arrays, by name.
    """

    def of_layer(layer: tuple[jax.Array, jax.Array | None]) -> tuple[Tree, Tree]:
        kernel_KN, norm_K = layer
        index = best_index(scores.of_dense(kernel_KN, grid, norm_K), grid, count, capacity)
        values = gather_blocks(kernel_KN, index, grid)
        return {"values": values}, {field.name: getattr(index, field.name) for field in dataclasses.fields(index)}

    return jax.lax.map(of_layer, (kernel_LKN, norm_LK))
