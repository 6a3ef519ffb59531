"""Tiles of the TPU kernels: how much of a product one grid step holds in VMEM, chosen before anything compiles.

Axes: T tokens, K and N the widths, bk x bn the block, n slots. A step of the line product (``tpu_lines.py``) holds a
panel of ``tokens`` whole rows of the activations, one output tile, and the values of the weight. A step of the value
gradient (``tpu_values.py``) holds panels of both activations and the sums of ``slots`` blocks.

Long panels are what makes blocks of 128 cheap: the fixed cost of a line (branch, copies in and out, filling the
matrix units) is paid once for all its tokens (``benchmarks/tpu_schedule.py`` counts it).
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax.typing import DTypeLike

from sparsejax.config import ConfigError
from sparsejax.hardware.chips import Chip
from sparsejax.topology.blocks import BlockGrid

# The compiler keeps some VMEM and SMEM for itself and for values it spills.
_USABLE_VMEM = 0.9
_USABLE_SMEM_BYTES = 800 * 2**10
# Lanes of a vector register: a block is addressed inside a row of the activations, so its sides are multiples.
LANES = 128
# Two inputs and outputs a panel: one in use, one on its way.
_BUFFERS = 2
# TensorCores that share the first axis of a kernel's grid; each has VMEM of its own.
CORES = {"v4": 2, "v5e": 1, "v5p": 2, "v6e": 1, "tpu7x": 1}
# Rows of the widest matrix unit.
_UNIT_WIDTH = 256
# Longest panels to try.
_PANELS = (2048, 1536, 1024, 768, 512, 384, 256, 128)
# Bundles that a product of the values' gradient costs at any length, and that turning a block row costs a token, as
# counted on v5e with blocks of 128 and on v6e with blocks of 256.
_PRODUCT_BUNDLES, _TURN_BUNDLES = 150, 0.23
# Most blocks in one matrix product: 8 gain a few per cent over two times 4, and the program has a product of each size.
_UNROLL = 4
# Tokens of a panel below which a wider weight pays more for its lines than it saves in reading its input once.
_JOINT_PANEL = 512
# Outputs of a grid step: many, to pay for the step's own bookkeeping, but never at the cost of a shorter panel.
_OUTPUTS = (2048, 1024, 512, LANES)


@dataclasses.dataclass(frozen=True)
class LineTiles:
    """Tiles of ``Y = X W`` and of ``gX = gY W^T``.

    Attributes:
      tokens: rows of the activation panel.
      lines: lines whose outputs one grid step makes.
      unroll: most blocks of a line that one matrix product contracts over.
      vmem_bytes: what the kernel holds, the limit it is compiled under.
    """

    tokens: int
    lines: int
    unroll: int
    vmem_bytes: int


@dataclasses.dataclass(frozen=True)
class ValueTiles:
    """Tiles of the values' gradient.

    Attributes:
      tokens: rows of the two activation panels.
      unroll: most blocks of a column in one matrix product.
      slots: blocks whose sums one pass over the tokens holds.
      vmem_bytes: what the kernel holds, the limit it is compiled under.
    """

    tokens: int
    unroll: int
    slots: int
    vmem_bytes: int


def line_tiles(chip: Chip, grid: BlockGrid, slots: int, tokens: int, dtype: DTypeLike, *, by_row: bool) -> LineTiles:
    """The longest panel that fits beside all values; ``by_row`` is ``gX = gY W^T``.

    Raises:
      ConfigError: no panel fits.
    """
    size, (bk, bn) = jnp.dtype(dtype).itemsize, grid.block
    (wide, across), (side, contracted) = (grid.shape[::-1], (bk, bn)) if by_row else (grid.shape, (bn, bk))
    unroll = min(_UNROLL, wide // contracted)
    values, smallest = slots * bk * bn * size, 0
    for panel in _panels(tokens, 32 // size, CORES[chip.name]):
        # The gathered operand of one product, its sum and the running sum.
        working = panel * unroll * contracted * size + 2 * panel * side * 4
        for lines in (max(1, min(outputs, across) // side) for outputs in _OUTPUTS):
            smallest = values + _BUFFERS * panel * (wide + lines * side) * size + working
            if smallest <= usable_vmem(chip):
                return LineTiles(panel, lines, unroll, smallest)
    raise ConfigError(
        f"model.implementation=pallas_tpu: {wide} x {across} with {slots} blocks of {bk}x{bn} needs "
        f"{smallest / 2**20:.0f} MiB of VMEM and {chip.name} has {usable_vmem(chip) / 2**20:.0f}; lower the density, "
        "shard the weight or use transient"
    )


def value_tiles(chip: Chip, grid: BlockGrid, slots: int, tokens: int, dtype: DTypeLike) -> ValueTiles:
    """The panels and passes that issue the fewest bundles: long panels need room that the sums then lack.

    A token costs a column its part of what a product costs at any length, and every pass turns its row of X again.

    Raises:
      ConfigError: not even the shortest panels fit beside one product.
    """
    size, (bk, bn), (K, N) = jnp.dtype(dtype).itemsize, grid.block, grid.shape
    unroll, a_sum = min(_UNROLL, K // bk), bk * bn * 4
    budget, needed, fitting = usable_vmem(chip), 0, []
    # Tokens are contracted, so a panel fills the matrix unit only in multiples of its width.
    panels = _panels(tokens, _UNIT_WIDTH if tokens >= _UNIT_WIDTH else 32 // size, 1)
    cores = min(CORES[chip.name], slots)
    # Where panels end past the last token every product has to mask, a quarter more bundles.
    for panel in [panel for panel in panels if tokens % panel == 0] or panels:
        # Both panels twice, the turned one, the gathered operand of one product and its result.
        held = panel * (_BUFFERS * (K + N) + K + unroll * bk) * size + unroll * a_sum
        needed = held + _BUFFERS * unroll * a_sum
        if needed <= budget:
            # Cores divide the passes among themselves.
            passes = -(-slots * _BUFFERS * a_sum // ((budget - held) * cores)) * cores
            slots_a_pass = -(-slots // passes)
            tiles = ValueTiles(panel, unroll, slots_a_pass, held + _BUFFERS * slots_a_pass * a_sum)
            bundles = _PRODUCT_BUNDLES / panel + passes * _TURN_BUNDLES * grid.rows / grid.columns
            fitting.append((bundles, panel, tiles))
    if fitting:
        return min(fitting, key=lambda choice: choice[:2])[2]
    raise ConfigError(
        f"model.implementation=pallas_tpu: the gradient of {K} x {N} in blocks of {bk}x{bn} needs "
        f"{needed / 2**20:.0f} MiB of VMEM and {chip.name} has {budget / 2**20:.0f}; shard the weight or use transient"
    )


def usable_vmem(chip: Chip) -> int:
    """Bytes of VMEM that a kernel may hold on the chip."""
    return int(_USABLE_VMEM * chip.kernel_memory_bytes)


def unsupported(grid: BlockGrid, dtype: DTypeLike) -> str:
    """Why no TPU kernel takes the grid; the empty string if they do."""
    if jnp.dtype(dtype) not in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)):
        return "TPU matrix units take bfloat16 and float32"
    if any(side % LANES for side in grid.block):
        return f"both sides of a block must be multiples of {LANES} on a TPU; use xla or transient"
    lists = 4 * (2 * grid.cells + 2 * max(grid.rows, grid.columns))
    if lists > _USABLE_SMEM_BYTES:
        return f"its index lists take {lists} bytes and SMEM has {_USABLE_SMEM_BYTES}; use larger blocks"
    return ""


def fits(chip: Chip, grid: BlockGrid, slots: int, dtype: DTypeLike) -> bool:
    """Whether all three products fit the chip with the shortest panels, so at any number of tokens."""
    try:
        for by_row in (False, True):
            line_tiles(chip, grid, slots, _PANELS[-1], dtype, by_row=by_row)
        value_tiles(chip, grid, slots, _PANELS[-1], dtype)
    except ConfigError:
        return False
    return True


def groups(chip: Chip, grid: BlockGrid, slots: int, tokens: int, dtype: DTypeLike) -> bool:
    """Whether several weights of one input gain by being this one: if the panels of its products stay long.

    It is about the output and the input's gradient; values' gradients are made weight by weight in any case.
    """
    try:
        panels = [line_tiles(chip, grid, slots, tokens, dtype, by_row=by_row).tokens for by_row in (False, True)]
    except ConfigError:
        return False
    return min(panels) >= min(_JOINT_PANEL, tokens)


def _panels(tokens: int, multiple: int, cores: int) -> tuple[int, ...]:
    """Panel lengths to try, longest first: the tokens cut into equal parts, as many for every core, rounded up."""
    parts = (-(-tokens // (limit * cores)) * cores for limit in _PANELS)
    return tuple(dict.fromkeys(-(-tokens // (part * multiple)) * multiple for part in parts))
