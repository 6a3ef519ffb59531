"""How the warpgroups of a Hopper thread block share its work: one copies, the others multiply, a ring lies between.

One memory warpgroup only starts tensor copies (TMA) into the stages of a ring in shared memory; the compute
warpgroups only issue tensor-core products (wgmma) on them and write what comes out. A thread block stays for many
work items. Steps are numbered through all of them, so the copies of the next item start while the last one is still
multiplied or written:

    memory    step g:  wait until stage g % stages is empty;  start the copies into it
    compute   step g:  wait until stage g % stages is full;   multiply;  release the stage of step g - 1

A stage is released one step late, because the products of step g are still in flight when their issue returns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.typing import DTypeLike

# A reference to memory of a kernel, for which Pallas has no public type.
Ref = Any
# (number of the work item, number of its first step) -> number of the first step behind it.
DoItem = Callable[[jax.Array, jax.Array], jax.Array]

# Operands, arrays or trees of arrays -> output.
Kernel = Callable[..., jax.Array]

# Registers of a multiprocessor over the threads of a warpgroup: what all warpgroups share.
_REGISTERS = 65_536 // 128
# The memory warpgroup computes addresses only. Counts are multiples of 8.
_MEMORY_REGISTERS = 40
# Rows of this many bytes, eight to a tile and swizzled, are what tensor copies write and tensor cores read.
_SWIZZLE_BYTES = 128


def stage(shape: tuple[int, ...], dtype: DTypeLike) -> Any:
    """Shared memory in the layout of tensor copies and tensor cores; rows are multiples of 128 bytes."""
    # Untyped: for a type checker the transforms of jax 0.11 are abstract classes.
    layouts: Any = plgpu
    tiling = layouts.TilingTransform((8, _SWIZZLE_BYTES // jnp.dtype(dtype).itemsize))
    return plgpu.SMEM(shape, dtype, transforms=(tiling, layouts.SwizzleTransform(_SWIZZLE_BYTES)))


def barriers(stages: int, *, copies: int, warpgroups: int) -> dict[str, Any]:
    """Scratch of a ring whose stages take ``copies`` copies each and are read by ``warpgroups`` warpgroups."""
    return {
        "full": plgpu.Barrier(num_arrivals=copies, num_barriers=stages),
        "empty": plgpu.Barrier(num_arrivals=warpgroups, num_barriers=stages),
    }


@dataclasses.dataclass(frozen=True)
class Ring:
    """The barriers of a ring.

    Attributes:
      full: one barrier a stage; completes when every copy of the stage has landed.
      empty: one barrier a stage; completes when every compute warpgroup has released the stage.
      stages: how many stages there are.
    """

    full: Ref
    empty: Ref
    stages: int

    def _stage(self, step: jax.Array) -> jax.Array:
        return lax.rem(step, jnp.int32(self.stages))

    def fill(self, step: jax.Array, copies: Callable[[jax.Array, Ref], None]) -> None:
        """Memory warpgroup: start the copies of a step, ``copies(stage, full barrier of the stage)``."""
        stage = self._stage(step)
        pl.when(step >= self.stages)(lambda: plgpu.barrier_wait(self.empty.at[stage]))
        copies(stage, self.full.at[stage])

    def drain(self, steps: jax.Array) -> None:
        """Memory warpgroup, after the last of all ``steps``: wait for the releases that no ``fill`` waited for."""
        pl.loop(lax.max(steps - self.stages, jnp.int32(0)), steps)(
            lambda step: plgpu.barrier_wait(self.empty.at[self._stage(step)])
        )

    def consume(self, first: jax.Array, steps: jax.Array, multiply: Callable[[jax.Array], None]) -> None:
        """A compute warpgroup: ``multiply(stage)``, which issues one product, in ``steps`` steps from step ``first``.

        On return the products are complete and the stages released.
        """

        def one(step: jax.Array) -> None:
            stage = self._stage(step)
            plgpu.barrier_wait(self.full.at[stage])
            multiply(stage)
            plgpu.wgmma_wait(1)
            pl.when(step > first)(lambda: self._release(step - 1))

        pl.loop(first, first + steps)(one)
        plgpu.wgmma_wait(0)
        pl.when(steps > 0)(lambda: self._release(first + steps - 1))

    def skip(self, first: jax.Array, steps: jax.Array) -> None:
        """A compute warpgroup without work in these steps: release their stages unread."""

        def one(step: jax.Array) -> None:
            plgpu.barrier_wait(self.full.at[self._stage(step)])
            self._release(step)

        pl.loop(first, first + steps)(one)

    def _release(self, step: jax.Array) -> None:
        plgpu.barrier_arrive(self.empty.at[self._stage(step)])


def launch(body: Callable[..., None], *, name: str, blocks: int, warpgroups: int, output: Any, scratch: Any) -> Kernel:
    """A kernel of ``blocks`` thread blocks, each with ``warpgroups`` compute warpgroups and one memory warpgroup.

    Args:
      body: takes references to operands and output, then the scratch by keyword.
      name: of the kernel in programs and profiles.
      blocks: the extent of the grid axis ``"block"``.
      warpgroups: compute warpgroups; the axis ``"warpgroup"`` has one more, the last one for memory.
      output: shape and dtype.
      scratch: shared memory and barriers by name.
    """
    kernel = plgpu.kernel(
        body,
        out_type=output,
        scratch_types=scratch,
        grid=(blocks,),
        grid_names=("block",),
        num_threads=warpgroups + 1,
        thread_name="warpgroup",
        kernel_name=name,
        # The default of jax 0.11, named so that 0.10 compiles the same way.
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
    )

    def run(*operands: Any) -> jax.Array:
        # A kernel's output says nothing about the mesh axes it varies over inside shard_map: those of its operands.
        varying = frozenset().union(
            *(jax.typeof(operand).manual_axis_type.varying for operand in jax.tree.leaves(operands))
        )
        return lax.pcast(kernel(*operands), tuple(varying), to="varying")

    return run


def turns_of(block: jax.Array, items: int | jax.Array, blocks: int) -> jax.Array:
    """How many work items a thread block has; see ``item_of``."""
    full = lax.div(items, jnp.int32(blocks))
    return full + (item_of(full, block, blocks) < items).astype(jnp.int32)


def item_of(turn: jax.Array, block: jax.Array, blocks: int) -> jax.Array:
    """The work item of a thread block in a turn: there and back again, so that who had the longest has the shortest."""
    return turn * blocks + jnp.where(lax.rem(turn, jnp.int32(2)) == 0, block, blocks - 1 - block)


def share_items(
    ring: Ring, items: int | jax.Array, blocks: int, warpgroups: int, copy: DoItem, multiply: DoItem
) -> None:
    """The life of one thread block: its turns through the work items, each copied and multiplied.

    Args:
      ring: between ``copy`` and ``multiply``.
      items: how many there are; a number or a scalar of the kernel.
      blocks: thread blocks of the grid.
      warpgroups: compute warpgroups.
      copy: run by the memory warpgroup; fills the ring.
      multiply: run by every compute warpgroup; consumes the ring and writes the output.
    """
    block, warpgroup = lax.axis_index("block"), lax.axis_index("warpgroup")
    turns = turns_of(block, jnp.int32(items), blocks)

    def each(do: DoItem) -> jax.Array:
        return lax.fori_loop(0, turns, lambda turn, step: do(item_of(turn, block, blocks), step), jnp.int32(0))

    def memory() -> None:
        plgpu.set_max_registers(_MEMORY_REGISTERS, action="decrease")
        ring.drain(each(copy))

    def compute() -> None:
        plgpu.set_max_registers((_REGISTERS - _MEMORY_REGISTERS) // warpgroups // 8 * 8, action="increase")
        each(multiply)
        plgpu.wait_smem_to_gmem(0)

    lax.cond(warpgroup == warpgroups, memory, compute)


def store(staged: Ref, part: jax.Array, target: Ref) -> None:
    """Write registers of a compute warpgroup to device memory through its own piece of shared memory.

    The copy runs on; it is waited for before the piece is used again. Rows beyond the end of ``target`` are dropped.
    """
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
    staged[...] = part
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(staged, target)
