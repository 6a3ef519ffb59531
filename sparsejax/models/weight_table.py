"""The density table: which weights of a model are sparse, on which grid, with how many blocks."""

from __future__ import annotations

import dataclasses
import math

from sparsejax.config import ConfigError, ModelConfig, TopologyConfig
from sparsejax.models.accounting import Storage, WeightCount
from sparsejax.models.monarch_shape import MonarchShape, nearest_shape
from sparsejax.models.shapes import SHARD_AXES, shape_of_model, weight_shapes
from sparsejax.models.sizes import rounded_mlp
from sparsejax.topology import allocation, density_path
from sparsejax.topology.blocks import Balance, BlockGrid
from sparsejax.topology.nm import NmPattern


@dataclasses.dataclass(frozen=True)
class SparseWeight:
    """One kind of weight, the same in all layers.

    Attributes:
      name: the kind, for example ``"attention.q"``.
      grid: shape, block, shares and balance.
      count: active blocks of one layer; where layers move apart (``drop="global_magnitude"``) their mean.
      capacity: slots of one layer, at least ``count``.
      shrinks: whether blocks leave for good, so that the weight is stored as blocks even while it is full.
      structure: what the weight is instead of blocks or a plain kernel: N:M over dense master weights, whose count is
        of the weights used and whose capacity of all, or Monarch factors, whose count is of their parameters. The
        grid then has places of one element.
    """

    name: str
    grid: BlockGrid
    count: int
    capacity: int
    shrinks: bool = False
    structure: NmPattern | MonarchShape | None = None

    @property
    def density(self) -> float:
        """Realised density, ``count / cells``; the ``d`` of the learning-rate rule."""
        return self.count / self.grid.cells

    @property
    def dense(self) -> bool:
        """True at realised density 1 for good: the weight is a plain kernel ``[K, N]`` without an index."""
        return self.structure is None and self.count == self.grid.cells and not self.shrinks

    @property
    def packed(self) -> bool:
        """True where the weight is stored as active blocks with an index; only such weights are rewired."""
        return self.structure is None and not self.dense

    @property
    def storage(self) -> Storage:
        """The storage, in the words of ``topology.storage``; a plain kernel counts as packed."""
        if isinstance(self.structure, NmPattern):
            return "dense_master"
        return "monarch" if isinstance(self.structure, MonarchShape) else "packed"

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names of the parameters of a layer."""
        if isinstance(self.structure, MonarchShape):
            return ("first", "second")
        return ("values",) if self.packed else ("kernel",)

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
            storage=self.storage,
        )


def mlp_width(model: ModelConfig, topology: TopologyConfig) -> int:
    """The MLP width a run uses, at every density: so a dense run at some block is the twin of its sparse ones."""
    # The groups of N:M lie along the inputs of mlp.down too.
    group = (topology.nm[1],) if topology.storage == "dense_master" else ()
    return rounded_mlp(model.mlp, (*topology.block, *group), topology.shards)


def weight_table(
    model: ModelConfig, topology: TopologyConfig, step: int = 0, steps: int = 1
) -> dict[str, SparseWeight]:
    """The seven kinds of weight with exact counts, as they are after ``step`` of ``steps``.

    Capacity equals the count, unless counts move: under a density that falls it is the stair the count is on
    (``density_path``), under ``drop="global_magnitude"`` it is ``capacity_slack`` times the count.

    Raises:
      ConfigError: a rule of ``topology.rules`` matches no kind, or asks N:M for another density than N/M or 1.
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
    weights = {
        name: SparseWeight(name, grid, counts[name], capacities[name], shrinks=last[name] < counts[name])
        for name, grid in grids.items()
    }
    return {name: _structured(weight, topology) for name, weight in weights.items()}


def _structured(weight: SparseWeight, topology: TopologyConfig) -> SparseWeight:
    """The weight in the storage of the run; its count so far is that of its density."""
    if weight.dense or topology.storage == "packed":
        return weight
    if topology.storage == "monarch":
        factors = nearest_shape(weight.grid.shape, weight.density)
        count = factors.parameters(weight.grid.shape)
        return dataclasses.replace(weight, count=count, capacity=count, structure=factors)
    used, group = topology.nm
    count = weight.grid.cells * used // group
    if abs(weight.count - count) > 1:
        raise ConfigError(
            f"topology.nm={topology.nm}: {weight.name} would have density {weight.density:g}, and N:M weights have "
            f"{used / group:g} or, by a rule, 1; leave allocation and attention_mlp_ratio as they are"
        )
    pattern = NmPattern(used, group, topology.flow)
    return dataclasses.replace(weight, count=count, capacity=weight.grid.cells, structure=pattern)


def _grids(model: ModelConfig, topology: TopologyConfig) -> dict[str, BlockGrid]:
    # A run without blocks has none to place, so its widths need not divide by one.
    blockless = topology.storage != "packed" or (topology.density == 1.0 and not topology.rules)
    block, shards = ((1, 1), 1) if blockless else (topology.block, topology.shards)
    balance: Balance = "column" if topology.balance == "column" and not blockless else "none"
    # The vocabulary belongs to the dense part and shapes none of these weights.
    shape = shape_of_model(model, mlp=mlp_width(model, topology), vocab=0)
    return {
        name: BlockGrid(
            shape=widths,
            block=block,
            shards=shards,
            shard_axis=SHARD_AXES[name],
            balance=balance,
        )
        for name, widths in weight_shapes(shape).items()
    }
