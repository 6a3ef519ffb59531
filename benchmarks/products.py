"""The products that ``benchmarks.kernels`` times: their operands, their programs, the bytes they cannot avoid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparsejax.kernels.api import block_matmul
from sparsejax.models.shapes import weight_shapes
from sparsejax.models.sizes import SIZES, rounded_mlp
from sparsejax.topology.blocks import BlockGrid, BlockSparse, index_from_positions

PRODUCTS = ("forward", "dx", "dv", "both")

# Operands rotate among so many bytes where a call is repeated inside a program: more than any accelerator's cache.
_COLD_BYTES = 256 << 20
_MOST_SETS = 8


def layer_shape(layer: str, block: tuple[int, int]) -> tuple[int, int]:
    """``(K, N)`` of a layer such as ``"1b/mlp.gate"``, the MLP width rounded up to the block as a run rounds it.

    Raises:
      ValueError: no such size or kind of weight; the message lists the names.
    """
    size, _, kind = layer.partition("/")
    if size not in SIZES:
        raise ValueError(f"{layer}: no size {size!r}; use one of {', '.join(SIZES)}")
    shapes = weight_shapes(SIZES[size].shape(rounded_mlp(SIZES[size].mlp, block, shards=1)))
    if kind not in shapes:
        raise ValueError(f"{layer}: no kind {kind!r}; use <size>/ and one of {', '.join(shapes)}")
    return shapes[kind]


def random_weight(grid: BlockGrid, density: float, seed: int) -> BlockSparse:
    """A float32 weight with the block count nearest to the density, at places drawn at random."""
    rng, count = np.random.default_rng(seed), max(1, round(density * grid.cells))
    if grid.balance == "column":
        parts = [
            column * grid.rows + np.sort(rng.permutation(grid.rows)[:blocks])
            for column, blocks in enumerate(grid.column_counts(count))
        ]
        position = np.concatenate(parts)
    else:
        position = np.sort(rng.permutation(grid.cells)[:count])
    index = index_from_positions(jnp.asarray(position)[None], grid)
    values = rng.standard_normal((count, *grid.block), np.float32)
    return BlockSparse(jnp.asarray(values), index, grid)


@dataclasses.dataclass(frozen=True)
class Operands:
    """What one product is given: x ``[T, K]``, gy ``[T, N]`` and a weight, dense ``[K, N]`` or block-sparse."""

    x: jax.Array
    weight: Any
    gy: jax.Array

    @property
    def values(self) -> jax.Array:
        """The numbers of the weight."""
        return self.weight.values if isinstance(self.weight, BlockSparse) else self.weight

    def bytes_moved(self, product: str) -> int:
        """Operands and result of the product, each read or written once; ``both`` is the three products."""
        (x, values, gy) = (int(array.nbytes) for array in (self.x, self.values, self.gy))
        # Each product has two of the three as operands and the third, or its gradient, as the result.
        return (3 if product == "both" else 1) * (x + values + gy)


def draw(grid: BlockGrid, tokens: int, dtype: str, seed: int) -> Operands:
    """Normal operands of ``dtype`` with a dense weight of the grid's shape."""
    rng, (K, N) = np.random.default_rng(seed), grid.shape
    shapes = ((tokens, K), (K, N), (tokens, N))
    return Operands(*(jnp.asarray(rng.standard_normal(shape, np.float32), dtype) for shape in shapes))


def with_blocks(operands: Operands, grid: BlockGrid, density: float, seed: int) -> Operands:
    """The same activations with a block-sparse weight instead."""
    weight = random_weight(grid, density, seed)
    return dataclasses.replace(
        operands, weight=dataclasses.replace(weight, values=weight.values.astype(operands.x.dtype))
    )


def _multiply(x: jax.Array, values: jax.Array, weight: Any, implementation: str) -> jax.Array:
    if implementation == "dense":
        y: jax.Array = jnp.dot(x, values)
        return y
    return block_matmul(x, dataclasses.replace(weight, values=values), implementation=implementation)


def product_of(implementation: str, product: str) -> Callable[[jax.Array, Any, jax.Array], Any]:
    """The function of (x, weight, gy) that is timed; XLA drops what a single product does not need."""

    def run(x: jax.Array, weight: Any, gy: jax.Array) -> Any:
        values = weight.values if isinstance(weight, BlockSparse) else weight
        if product == "forward":
            return _multiply(x, values, weight, implementation)
        y, pull = jax.vjp(lambda x, values: _multiply(x, values, weight, implementation), x, values)
        gx, gvalues = pull(gy)
        return {"dx": gx, "dv": gvalues, "both": (y, gx, gvalues)}[product]

    return run


def _touch(result: Any) -> jax.Array:
    """One number that exists only after the whole result does."""
    leaves = jax.tree.leaves(lax.optimization_barrier(result))
    return sum((leaf.reshape(-1)[0].astype(jnp.float32) for leaf in leaves), start=jnp.zeros((), jnp.float32))


def _repeated(function: Callable[..., Any], turns: int) -> Callable[[list[tuple[Any, ...]]], jax.Array]:
    """``function`` on every set of operands, ``turns`` times over, one call after another inside one program."""

    def run(sets: list[tuple[Any, ...]]) -> jax.Array:
        def turn(_: jax.Array, total: jax.Array) -> jax.Array:
            for operands in sets:
                # Tied to the call before it: a call whose operands never change would be moved out of the loop.
                operands, total = lax.optimization_barrier((operands, total))
                total = total + _touch(function(*operands))
            return total

        return lax.fori_loop(0, turns, turn, jnp.zeros((), jnp.float32))

    return run


@dataclasses.dataclass(frozen=True)
class Timed:
    """A compiled program that makes ``calls`` calls each time it is run; the bytes are those of one call."""

    run: Callable[[], Any]
    calls: int
    temporary_bytes: int


def compiled(function: Callable[..., Any], operands: Operands, calls: int) -> Timed:
    """The function as a program to time.

    With ``calls`` 1 it is one call that returns its result. From two on, at least so many calls run inside one
    program, so that starting it does not count, on sets of operands that together are larger than a cache.
    """
    arguments = (operands.x, operands.weight, operands.gy)
    once = jax.jit(function).lower(*arguments).compile()
    temporary_bytes = int(once.memory_analysis().temp_size_in_bytes)
    if calls == 1:
        return Timed(lambda: once(*arguments), 1, temporary_bytes)
    held = sum(int(leaf.nbytes) for leaf in jax.tree.leaves(arguments))
    count = min(math.ceil(_COLD_BYTES / held), _MOST_SETS, calls)
    sets = [arguments, *(jax.tree.map(jnp.copy, arguments) for _ in range(count - 1))]
    turns = math.ceil(calls / count)
    program = jax.jit(_repeated(function, turns)).lower(sets).compile()
    return Timed(lambda: program(sets), turns * count, temporary_bytes)
