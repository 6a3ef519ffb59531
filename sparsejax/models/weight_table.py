"""The density table: which weights of a model are sparse, on which grid, with how many blocks."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from sparsejax.config import ConfigError, ModelConfig, TopologyConfig
from sparsejax.models.accounting import Storage, WeightCount
from sparsejax.models.monarch_shape import MonarchShape, nearest_shape
from sparsejax.models.shapes import SHARD_AXES, shape_of_model, weight_shapes
from sparsejax.models.sizes import rounded_mlp
from sparsejax.topology import allocation, density_path
from sparsejax.topology.blocks import Balance, BlockGrid
from sparsejax.topology.nm import NmPattern

# Rows a device should keep of every block: accelerators store tiles of eight, fewer waste the rest.
_FULL_TILE = 8

# Slots over blocks up to which free slots are the smaller waste than tiles that are not full.
_MOST_SLOTS = 1.125


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
      cut: what the devices of the fsdp axis share out of packed blocks: the ``"rows"`` inside every block, or the
        ``"slots"`` of every share.
    """

    name: str
    grid: BlockGrid
    count: int
    capacity: int
    shrinks: bool = False
    structure: NmPattern | MonarchShape | None = None
    cut: Literal["rows", "slots"] = "rows"

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


def local_weight(weight: SparseWeight, tensor: int) -> SparseWeight:
    """The weight as one device of the tensor axis multiplies it: its own shares of the grid, blocks and slots."""
    grid, (K, N) = weight.grid, weight.grid.shape
    cut_shape = (K // tensor, N) if grid.shard_axis == "rows" else (K, N // tensor)
    local = dataclasses.replace(grid, shape=cut_shape, shards=max(grid.shards // tensor, 1))
    return dataclasses.replace(weight, grid=local, count=weight.count // tensor, capacity=weight.capacity // tensor)


def mlp_width(model: ModelConfig, topology: TopologyConfig) -> int:
    """The MLP width a run uses, at every density: so a dense run at some block is the twin of its sparse ones."""
    # The groups of N:M lie along the inputs of mlp.down too.
    group = (topology.nm[1],) if topology.storage == "dense_master" else ()
    return rounded_mlp(model.mlp, (*topology.block, *group), topology.shards)


def weight_table(
    model: ModelConfig, topology: TopologyConfig, step: int = 0, steps: int = 1, *, fsdp: int = 1
) -> dict[str, SparseWeight]:
    """The seven kinds of weight with exact counts, as they are after ``step`` of ``steps``.

    Capacity equals the count, unless counts move: under a density that falls it is the stair the count is on
    (``density_path``), under ``drop="global_magnitude"`` it is ``capacity_slack`` times the count. Where devices share
    out the slots of a weight, free slots make them even.

    Args:
      model: widths.
      topology: density, blocks, shares and their exceptions.
      step: optimizer steps done.
      steps: of the whole run.
      fsdp: devices along that axis of the mesh, which cut what is stored.

    Raises:
      ConfigError: a rule of ``topology.rules`` matches no kind, or asks N:M for another density than N/M or 1; or
        balanced columns, which have no free slots, cannot be stored evenly.
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
    return {name: _stored(_structured(weight, topology), fsdp) for name, weight in weights.items()}


def _stored(weight: SparseWeight, fsdp: int) -> SparseWeight:
    """The weight with what its storage on ``fsdp`` devices decides: what is cut, and the slots that takes."""
    if fsdp == 1 or not weight.packed:
        return weight
    bk, shards = weight.grid.block[0], weight.grid.shards
    divides = bk % fsdp == 0
    if divides and bk // fsdp >= _FULL_TILE:
        return weight
    capacity = -(-weight.capacity // (shards * fsdp)) * shards * fsdp
    even = capacity == weight.capacity
    # A block column's static count leaves no room for free slots.
    if (weight.grid.balance == "column" and not even) or capacity > _MOST_SLOTS * weight.capacity:
        if divides:
            return weight
        if weight.grid.balance == "column":
            raise ConfigError(
                f"mesh.fsdp={fsdp}: topology.balance=column leaves no free slots to store the {weight.capacity} blocks "
                f"of {weight.name} evenly, and {fsdp} does not divide blocks of {bk} rows; use another mesh or "
                "balance=none"
            )
    return dataclasses.replace(weight, capacity=capacity, cut="slots")


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
