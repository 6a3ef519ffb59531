"""A linear layer whose weight is its active blocks, for any Flax NNX model.

Axes: K input width, N output width, n slots, bk x bn the block.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from sparsejax.config import check_argument
from sparsejax.kernels import api
from sparsejax.kernels.scored_matmul import scored_matmul
from sparsejax.models.accounting import DENSE_IMPLEMENTATIONS
from sparsejax.models.layers import dense_product
from sparsejax.models.parallel import ALONE, Parallel
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology import allocation, initial
from sparsejax.topology.blocks import (
    BlockGrid,
    BlockIndex,
    BlockSparse,
    FlatIndex,
    Index,
    active_mask,
    coordinates,
    gather_blocks,
    to_dense,
)

# The outputs that remat="dots" keeps: by name, so that every implementation of block_matmul obeys.
LINEAR_OUTPUT = "linear_output"


class TopologyIndex(nnx.Variable):
    """An integer array that says where blocks are; changes at rewiring, never by a gradient."""


class GrowthProbe(nnx.Variable):
    """Zeros ``[K / bk, N / bn]`` whose gradient is ``sum |dL/dW|`` of every block."""


class SparseLinear(nnx.Module):
    """``y = x W`` without bias, where ``W [K, N]`` is stored as active blocks, or as a plain kernel at density 1.

    Variables: ``values`` (``nnx.Param``, float32 ``[n, bk, bn]``) and the fields of ``BlockIndex`` or ``FlatIndex``
    (``TopologyIndex``, int32); a dense weight has ``kernel`` (``nnx.Param``, float32 ``[K, N]``) instead. In your
    own model, beside any other layer::

        class Mlp(nnx.Module):
            def __init__(self, rngs):
                self.up = SparseLinear.create(128, 512, density=0.25, block=(16, 16), rngs=rngs)
                self.down = nnx.Linear(512, 128, rngs=rngs)

            def __call__(self, x):
                return self.down(nnx.relu(self.up(x)))

        model = Mlp(nnx.Rngs(0))
        gradients = nnx.grad(lambda m: m(x).sum())(model)   # gradients["up"]["values"]: active blocks only
    """

    # Set by the score program only.
    probe: GrowthProbe
    scored: jax.Array

    def __init__(
        self,
        weight: SparseWeight,
        *,
        implementation: str,
        compute_dtype: DTypeLike,
        std: float,
        init_key: jax.Array,
        topology_key: jax.Array,
        parallel: Parallel = ALONE,
    ) -> None:
        """Draw a random topology and normal values.

        Args:
          weight: grid, active blocks and slots.
          implementation: a name of ``kernels.api`` (resolved: not ``"auto"``); a dense weight needs none.
          compute_dtype: dtype of inputs, of the multiplied copy of the values, and of outputs.
          std: standard deviation of the initial values, see ``initial_std``.
          init_key: key of the values.
          topology_key: key of the places of the blocks.
          parallel: the mesh inside which it is called, with ``weight`` being the shares of one device.
        """
        self.parallel, self.cut = parallel, weight.cut
        self.grid, self.dense = weight.grid, weight.dense
        self.free_slots = weight.capacity > weight.count or weight.shrinks
        self.implementation = implementation
        self.compute_dtype = jnp.dtype(compute_dtype)
        if weight.dense:
            self.kernel = nnx.Param(std * jax.random.normal(init_key, weight.grid.shape, jnp.float32))
            return
        index = initial.random_index(topology_key, weight.grid, weight.count, weight.capacity)
        self.values = nnx.Param(initial_values(init_key, index, weight.grid, std))
        for name in _index_fields(weight.grid):
            setattr(self, name, TopologyIndex(getattr(index, name)))

    @classmethod
    def create(
        cls,
        in_features: int,
        out_features: int,
        *,
        density: float,
        block: tuple[int, int],
        rngs: nnx.Rngs,
        implementation: str = "transient",
        compute_dtype: DTypeLike = jnp.float32,
        std: float = 0.02,
    ) -> SparseLinear:
        """A layer with the number of blocks nearest to ``density``; keys from the streams ``params`` and ``topology``.

        Args:
          in_features: K.
          out_features: N.
          density: share of active blocks, in (0, 1]. Where every block is active the layer holds a plain kernel.
          block: ``(bk, bn)``, dividing the widths.
          rngs: Flax's random streams.
          implementation: a name of ``kernels.api`` that takes the grid and the dtype.
          compute_dtype: floating point.
          std: standard deviation of the initial values, above 0.

        Raises:
          ValueError: an argument out of range, or a block or an implementation that does not fit.
        """
        check_argument("density", density, "topology.density")
        check_argument("std", std, "model.init_std")
        grid = BlockGrid(shape=(in_features, out_features), block=tuple(block) if isinstance(block, list) else block)
        if not jnp.issubdtype(compute_dtype, jnp.floating):
            raise ValueError(f"compute_dtype={jnp.dtype(compute_dtype).name}: must be floating point")
        if reason := api.unsupported(implementation, grid, compute_dtype):
            what = api.described(grid, compute_dtype)
            raise ValueError(f"implementation={implementation!r} does not support {what}: {reason}")
        count = allocation.nearest_count(density, grid)
        return cls(
            SparseWeight(name="linear", grid=grid, count=count, capacity=count),
            implementation=implementation,
            compute_dtype=compute_dtype,
            std=std,
            init_key=rngs.params(),
            topology_key=rngs.topology(),
        )

    @property
    def weight(self) -> BlockSparse:
        """The sparse weight, float32 values and index; a dense layer has none (``AttributeError``).

        On a mesh it is the shares of one device, gathered from all that store parts of them.
        """
        fields = {name: getattr(self, name)[...] for name in _index_fields(self.grid)}
        index: Index = FlatIndex(**fields) if self.grid.unstructured else BlockIndex(**fields)
        index = self.parallel.local_index(index, self.grid, self.cut == "slots")
        values = self.parallel.gather(self.values[...], 0 if self.cut == "slots" else 1, self.compute_dtype)
        return BlockSparse(values=values, index=index, grid=self.grid)

    @property
    def is_plain_blocks(self) -> bool:
        """Whether a call is ``block_matmul`` and nothing else, with every slot in use."""
        return not (self.dense or self.free_slots or hasattr(self, "scored") or hasattr(self, "probe"))

    def hold_scored_kernel(self, parts: int) -> None:
        """Make the weight dense once for all ``parts`` of the batch, with a gradient that reaches its ``GrowthProbe``.

        Where one device has the batch in one part, the gradient of the product is that of the whole batch, so
        ``scored_matmul`` scores it as it is made, and nothing is done here; unless the implementation makes the weight
        dense for every product anyway.
        """
        if parts == 1 and self.parallel.data == 1 and self.implementation not in DENSE_IMPLEMENTATIONS:
            return
        weight = self.weight
        kernel = scored_kernel(weight.values, self.probe[...], weight.index, self.grid, self.parallel)
        self.scored = nnx.data(kernel)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``x [..., K]`` of any float dtype to ``[..., N]`` in the compute dtype."""
        x = x.astype(self.compute_dtype)
        if self.dense:
            axis = 1 if self.grid.shard_axis == "rows" else 0
            kernel = self.parallel.gather(self.kernel[...], axis, self.compute_dtype)
            y = dense_product(x, kernel.astype(self.compute_dtype))
        elif hasattr(self, "scored"):
            y = x.reshape(-1, x.shape[-1]) @ self.scored.astype(self.compute_dtype)
            y = y.reshape(*x.shape[:-1], -1)
        elif hasattr(self, "probe"):
            y = scored_matmul(x, self.weight, self.probe[...], implementation=self.implementation)
        else:
            # The values go in as float32: block_matmul casts them, and returns their gradient unrounded.
            y = api.block_matmul(x, self.weight, implementation=self.implementation)
        return checkpoint_name(y, LINEAR_OUTPUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def scored_kernel(
    values: jax.Array, probe_RC: jax.Array, index: Index, grid: BlockGrid, parallel: Parallel = ALONE
) -> jax.Array:
    """The dense matrix ``[K, N]`` of a weight, whose gradient reaches ``probe_RC`` as one score a block.

    The gradient of ``values`` is the plain one. The gradient of ``probe_RC [K / bk, N / bn]`` is ``sum |G|`` over each
    block of ``G = dL/dW``. ``G`` itself exists for this one weight of one layer, and only while it is summed up;
    because it is a whole gradient before its absolute value is taken, it is that of the global batch on any mesh:
    devices that have parts of the batch add theirs up first, each for its part of the block rows.
    """
    del probe_RC
    return to_dense(BlockSparse(values=values, index=index, grid=grid))


def _scored_forward(
    values: jax.Array, probe_RC: jax.Array, index: Index, grid: BlockGrid, parallel: Parallel
) -> tuple[jax.Array, tuple[Index]]:
    return scored_kernel(values, probe_RC, index, grid, parallel), (index,)


def _scored_backward(
    grid: BlockGrid, parallel: Parallel, residuals: tuple[Index], gradient_KN: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    (index,) = residuals
    (bk, bn) = grid.block
    summed_KN = parallel.own_rows(gradient_KN, bk)
    blocks = jnp.abs(summed_KN).reshape(-1, bk, grid.columns, bn)
    norms_RC = parallel.among_all_rows(jnp.sum(blocks, axis=(1, 3)), grid.rows)
    return gather_blocks(gradient_KN, index, grid), norms_RC, None


scored_kernel.defvjp(_scored_forward, _scored_backward)


def initial_std(init: str, std: float, density: float) -> float:
    """Standard deviation of a weight's initial values.

    ``"normal"`` is ``std``. ``"density_aware"`` is ``std * density^(-1/2)``: an output sums ``density * K`` products
    on average, so this keeps the variance of the dense layer's outputs, ``K std^2 var(x)``, at every density
    (Evci et al., arXiv 2010.03533, section 3.1, per layer; Dey et al., arXiv 2405.15743, table 1).
    """
    return std if init == "normal" else std * density**-0.5


def initial_values(key: jax.Array, index: Index, grid: BlockGrid, std: float) -> jax.Array:
    """Normal values ``[n, bk, bn]`` float32, exactly 0 in free slots.

    Each block draws from ``fold_in(key, row * columns + column)``: its values depend on its place alone, so no
    dense matrix is needed and blocks shared by two topologies or two densities start from the same draw.
    """
    rows, cols = coordinates(index, grid)

    def draw(place: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, place), grid.block, jnp.float32)

    values = std * jax.vmap(draw)(rows * grid.columns + cols)
    return jnp.where(active_mask(index, grid)[:, None, None], values, 0.0)


def _index_fields(grid: BlockGrid) -> tuple[str, ...]:
    cls = FlatIndex if grid.unstructured else BlockIndex
    return tuple(field.name for field in dataclasses.fields(cls))
