"""What one device of a mesh does differently: where weights come together, and where sums go over devices.

On a mesh the whole gradient program is one ``jax.shard_map``: every device runs the model below on its rows of the
batch and its part of every product, and says itself what it needs from others. The objective of the run is the sum of
the devices' own, every token being counted once, so gradients taken inside are right: the transpose of gathering is
summing and scattering, that of a sum is a sum.

Mesh axes: ``replica`` (copies), ``fsdp`` (cuts stored weights), ``tensor`` (cuts products). A device alone takes the
same path and every function here gives back what it got.

Axes: B rows, T tokens of a row, t tokens of one device, D hidden.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sparsejax.topology.blocks import BlockGrid, FlatIndex, Index

REPLICA, FSDP, TENSOR = "replica", "fsdp", "tensor"
AXES = (REPLICA, FSDP, TENSOR)

# What the backward pass makes again instead of finding it kept: arrays gathered from other devices, and casts, behind
# which they would hide. Kept between the passes, gathered weights would be a copy of the whole model on every device.
_MADE_AGAIN = ("all_gather", "convert_element_type")


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Sizes of the mesh, and whether activations between the products are cut along tokens.

    Attributes:
      replica, fsdp, tensor: devices along each axis.
      sequence: the residual stream of a device has ``T / tensor`` tokens instead of all.
    """

    replica: int = 1
    fsdp: int = 1
    tensor: int = 1
    sequence: bool = False

    @property
    def alone(self) -> bool:
        """Whether there is one device only."""
        return self.replica * self.fsdp * self.tensor == 1

    @property
    def data(self) -> int:
        """Parts the rows of a batch are cut into."""
        return self.replica * self.fsdp

    def named(self, *axes: str) -> tuple[str, ...]:
        """Those of the mesh axes that have more than one device, in the order of the mesh."""
        return tuple(axis for axis in AXES if axis in axes and getattr(self, axis) > 1)

    def gather(self, weight: jax.Array, axis: int, dtype: DTypeLike, over: Sequence[str] = (FSDP,)) -> jax.Array:
        """The whole of a weight that is stored in parts along ``axis`` by the devices of ``over``.

        It travels in ``dtype``, in which it will be multiplied, and comes back in its own, so that its gradient is
        summed unrounded; the sum over the devices is scattered back to the parts.
        """
        names = self.named(*over)
        return _gathered(weight, names, axis, jnp.dtype(dtype)) if names else weight

    def enter(self, x_BtD: jax.Array) -> jax.Array:
        """The residual stream as inputs of products that are cut by columns: all tokens, ``[B, T, D]``."""
        if not self.sequence or self.tensor == 1:
            return x_BtD
        return jax.lax.all_gather(x_BtD, TENSOR, axis=1, tiled=True)

    def leave(self, y_BTD: jax.Array) -> jax.Array:
        """Partial outputs of products that are cut by rows, summed: ``[B, T, D]``, or the device's own tokens."""
        if self.tensor == 1:
            return y_BTD
        if self.sequence:
            return jax.lax.psum_scatter(y_BTD, TENSOR, scatter_dimension=1, tiled=True)
        return jax.lax.psum(y_BTD, TENSOR)

    def own_tokens(self, x_BT: jax.Array) -> jax.Array:
        """The tokens ``[B, t, ...]`` that one device of the tensor axis answers for, of ``[B, T, ...]``."""
        if self.tensor == 1:
            return x_BT
        length = x_BT.shape[1] // self.tensor
        return jax.lax.dynamic_slice_in_dim(x_BT, jax.lax.axis_index(TENSOR) * length, length, axis=1)

    def own_rows(self, partial_KN: jax.Array, unit: int) -> jax.Array:
        """Sum over the parts of the batch; each device gets whole groups of ``unit`` rows, zeros behind the last."""
        names = self.named(REPLICA, FSDP)
        if not names:
            return partial_KN
        padding = -partial_KN.shape[0] % (self.data * unit)
        padded_KN = jnp.pad(partial_KN, ((0, padding), (0, 0)))
        return jax.lax.psum_scatter(padded_KN, names, scatter_dimension=0, tiled=True)

    def among_all_rows(self, own_RC: jax.Array, rows: int) -> jax.Array:
        """What a device found for its groups of rows, ``[rows, C]`` with zeros for those of the other devices."""
        names = self.named(REPLICA, FSDP)
        if not names:
            return own_RC
        place = jax.lax.axis_index(names) * own_RC.shape[0]
        padded_RC = jnp.zeros((own_RC.shape[0] * self.data, own_RC.shape[1]), own_RC.dtype)
        return jax.lax.dynamic_update_slice_in_dim(padded_RC, own_RC, place, axis=0)[:rows]

    def local_index(self, index: Index, grid: BlockGrid, cut_slots: bool) -> Index:
        """An index of whole-weight coordinates as one of the device's shares.

        Args:
          index: the device's slots; coordinates are those of the whole weight.
          grid: of the device's shares.
          cut_slots: whether the slots of a share are spread over the fsdp axis.
        """
        if isinstance(index, FlatIndex):
            return self._local_flat(index, grid, cut_slots)
        if self.tensor == 1:
            return index
        rank = jax.lax.axis_index(TENSOR)
        if grid.shard_axis == "rows":
            active = index.cols < grid.columns
            return dataclasses.replace(index, rows=jnp.where(active, index.rows - rank * grid.rows, 0))
        active = index.cols < self.tensor * grid.columns
        return dataclasses.replace(index, cols=jnp.where(active, index.cols - rank * grid.columns, grid.columns))

    def _local_flat(self, index: FlatIndex, grid: BlockGrid, cut_slots: bool) -> FlatIndex:
        flat, (rows, columns) = index.flat, grid.shape
        if cut_slots and self.fsdp > 1:
            flat = jax.lax.all_gather(flat, FSDP, axis=0, tiled=True)
        if self.tensor == 1:
            return FlatIndex(flat)
        rank = jax.lax.axis_index(TENSOR)
        active = flat < self.tensor * grid.cells
        if grid.shard_axis == "rows":
            local = flat - rank * rows * columns
        else:
            width = self.tensor * columns
            local = flat // width * columns + flat % width - rank * columns
        return FlatIndex(jnp.where(active, local, grid.cells))


ALONE = Parallel()


def all_but_gathered(primitive: Any, *avals: Any, **parameters: Any) -> bool:
    """Policy of ``jax.checkpoint`` that keeps every result but what came from other devices."""
    del avals
    # ``Parallel.gather`` is one step to a policy, known by what is inside.
    inside = parameters["call_jaxpr"].eqns if "call_jaxpr" in parameters else ()
    return primitive.name not in _MADE_AGAIN and all(step.primitive.name != "all_gather" for step in inside)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gathered(weight: jax.Array, names: tuple[str, ...], axis: int, dtype: jnp.dtype) -> jax.Array:
    return jax.lax.all_gather(weight.astype(dtype), names, axis=axis, tiled=True).astype(weight.dtype)


def _gather_forward(weight: jax.Array, names: tuple[str, ...], axis: int, dtype: jnp.dtype) -> tuple[jax.Array, None]:
    return _gathered(weight, names, axis, dtype), None


def _gather_backward(
    names: tuple[str, ...], axis: int, dtype: jnp.dtype, residuals: None, gradient: jax.Array
) -> tuple[jax.Array]:
    del dtype, residuals
    return (jax.lax.psum_scatter(gradient, names, scatter_dimension=axis, tiled=True),)


_gathered.defvjp(_gather_forward, _gather_backward)
