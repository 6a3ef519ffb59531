"""The density table: which weights of a model are sparse, on which grid, with how many blocks."""

from __future__ import annotations

import dataclasses
import math

from sparsejax.config import ModelConfig, TopologyConfig
from sparsejax.models.accounting import WeightCount
from sparsejax.models.shapes import SHARD_AXES, shape_of_model, weight_shapes
from sparsejax.models.sizes import rounded_mlp
from sparsejax.topology import allocation, density_path
from sparsejax.topology.blocks import Balance, BlockGrid


@dataclasses.dataclass(frozen=True)
class SparseWeight:
    """One kind of weight, the same in all layers.

    Attributes:
      name: the kind, for example ``"attention.q"``.
      grid: shape, block, shares and balance.
      count: active blocks of one layer; where layers move apart (``drop="global_magnitude"``) their mean.
      capacity: slots of one layer, at least ``count``.
      shrinks: whether blocks leave for good, so that the weight is stored as blocks even while it is full.
    """

    name: str
    grid: BlockGrid
    count: int
    capacity: int
    shrinks: bool = False

    @property
    def density(self) -> float:
        """Realised density, ``count / cells``; the ``d`` of the learning-rate rule."""
        return self.count / self.grid.cells

    @property
    def dense(self) -> bool:
        """True at realised density 1 for good: the weight is a plain kernel ``[K, N]`` without an index."""
        return self.count == self.grid.cells and not self.shrinks

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


def weight_table(
    model: ModelConfig, topology: TopologyConfig, step: int = 0, steps: int = 1
) -> dict[str, SparseWeight]:
    """The seven kinds of weight with exact counts, as they are after ``step`` of ``steps``.

    Capacity equals the count, unless counts move: under a density that falls it is the stair the count is on
    (``density_path``), under ``drop="global_magnitude"`` it is ``capacity_slack`` times the count.

    Raises:
      ConfigError: a rule of ``topology.rules`` matches no kind.
      ValueError: a width that the block or the shares do not divide (``config.resolve`` says so first).
    """
    grids = _grids(model, topology)

    def counts_at(density: float) -> dict[str, int]:
        return allocation.allocate(grids, density, topology.allocation, topology.attention_mlp_ratio, topology.rules)

    counts = counts_at(density_path.density_at(topology, step, steps))
    capacities = counts_at(density_path.capacity_density_at(topology, step, steps))
    last = counts_at(topology.density)
    if topology.drop == "global_magnitude":
        capacities = {
            name: min(math.ceil(count / grids[name].shards * topology.capacity_slack), grids[name].cells_per_share)
            * grids[name].shards
            for name, count in counts.items()
        }
    return {
        name: SparseWeight(name, grid, counts[name], capacities[name], shrinks=last[name] < counts[name])
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
