"""The density table: which weights of a model are sparse, on which grid, with how many blocks."""

from __future__ import annotations

import dataclasses

from sparsejax.config import ModelConfig, TopologyConfig
from sparsejax.models.accounting import WeightCount
from sparsejax.models.shapes import SHARD_AXES, shape_of_model, weight_shapes
from sparsejax.models.sizes import rounded_mlp
from sparsejax.topology import allocation
from sparsejax.topology.blocks import Balance, BlockGrid


@dataclasses.dataclass(frozen=True)
class SparseWeight:
    """One kind of weight, the same in all layers.

    Attributes:
      name: the kind, for example ``"attention.q"``.
      grid: shape, block, shares and balance.
      count: active blocks of one layer.
      capacity: slots of one layer, at least ``count``.
    """

    name: str
    grid: BlockGrid
    count: int
    capacity: int

    @property
    def density(self) -> float:
        """Realised density, ``count / cells``; the ``d`` of the learning-rate rule."""
        return self.count / self.grid.cells

    @property
    def dense(self) -> bool:
        """True at realised density 1: the weight is a plain kernel ``[K, N]`` without an index."""
        return self.count == self.grid.cells

    @property
    def counted(self) -> WeightCount:
        """What accounting needs to know."""
        return WeightCount(
            name=self.name,
            shape=self.grid.shape,
            block=self.grid.block,
            shards=self.grid.shards,
            count=self.count,
            capacity=self.capacity,
        )


def mlp_width(model: ModelConfig, topology: TopologyConfig) -> int:
    """The MLP width a run uses, at every density: so a dense run at some block is the twin of its sparse ones."""
    return rounded_mlp(model.mlp, topology.block, topology.shards)


def weight_table(model: ModelConfig, topology: TopologyConfig) -> dict[str, SparseWeight]:
    """The seven kinds of weight with exact counts; capacity equals the count, as these methods never move counts.

    Raises:
      ConfigError: a rule of ``topology.rules`` matches no kind.
      ValueError: a width that the block or the shares do not divide (``config.resolve`` says so first).
    """
    grids = _grids(model, topology)
    counts = allocation.allocate(
        grids, topology.density, topology.allocation, topology.attention_mlp_ratio, topology.rules
    )
    return {
        name: SparseWeight(name=name, grid=grid, count=counts[name], capacity=counts[name])
        for name, grid in grids.items()
    }


def _grids(model: ModelConfig, topology: TopologyConfig) -> dict[str, BlockGrid]:
    # A dense run has no blocks to place, so its widths need not divide by one.
    all_dense = topology.density == 1.0 and not topology.rules
    block, shards = ((1, 1), 1) if all_dense else (topology.block, topology.shards)
    balances: dict[str, Balance] = {"none": "none", "column": "column"}
    # The vocabulary belongs to the dense part and shapes none of these weights.
    shape = shape_of_model(model, mlp=mlp_width(model, topology), vocab=0)
    return {
        name: BlockGrid(
            shape=widths,
            block=block,
            shards=shards,
            shard_axis=SHARD_AXES[name],
            balance=balances[topology.balance],
        )
        for name, widths in weight_shapes(shape).items()
    }
