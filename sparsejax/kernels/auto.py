"""``implementation="auto"``: the fastest measured choice, looked up on the host before anything compiles.

The target is an argument: the host that compiles is not always the device that runs, so nothing here asks JAX
which backend is present.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax.numpy as jnp
from jax.typing import DTypeLike

from sparsejax.config import ConfigError
from sparsejax.hardware.chips import chip_named
from sparsejax.hardware.target import Target
from sparsejax.kernels import tpu_tiles
from sparsejax.kernels.api import IMPLEMENTATIONS, described, unsupported
from sparsejax.topology.blocks import Balance, BlockGrid

Block = tuple[int, int]
# Side of a square weight -> block -> density -> a time over that of the dense product.
BySide = Mapping[int, Mapping[Block, Mapping[float, float]]]

# Kernels for accelerators: in IMPLEMENTATIONS once for every chip that they have tiles for.
KERNELS = ("pallas_tpu", "pallas_gpu")

# Time of xla over time of the dense product, forward + backward, by platform and balance, then by side of a square
# weight, block and density.
#
# cpu: `python -m benchmarks.kernels --preset auto`: 2048 tokens at side 2048, 1024 at side 512, float32, medians of
# wall clock; two cores of an Intel Sapphire Rapids server, jax 0.10.2. Cells above 0.9 could go either way.
#
# gpu and tpu have no rows: loops of small products and gathers of activation slabs lose to one dense product on both
# (estimated at 0.85 of dense or worse before launch costs).
XLA_OVER_DENSE: Mapping[tuple[str, Balance], BySide] = {
    ("cpu", "none"): {
        512: {
            (16, 16): {0.5: 2.49, 0.25: 1.36, 0.125: 0.98},
            (32, 32): {0.5: 1.74, 0.25: 1.02, 0.125: 0.66},
            (64, 64): {0.5: 1.30, 0.25: 0.76, 0.125: 0.50},
            (128, 128): {0.5: 1.05, 0.25: 0.63, 0.125: 0.41},
        },
        2048: {
            (16, 16): {0.5: 2.99, 0.25: 1.77, 0.125: 0.87},
            (32, 32): {0.5: 2.09, 0.25: 1.04, 0.125: 0.61},
            (64, 64): {0.5: 1.39, 0.25: 0.80, 0.125: 0.45},
            (128, 128): {0.5: 0.92, 0.25: 0.52, 0.125: 0.33},
        },
    },
    ("cpu", "column"): {
        512: {
            (16, 16): {0.5: 2.11, 0.25: 1.40, 0.125: 0.82},
            (32, 32): {0.5: 1.53, 0.25: 1.00, 0.125: 0.68},
            (64, 64): {0.5: 1.08, 0.25: 0.65, 0.125: 0.53},
            (128, 128): {0.5: 0.95, 0.25: 0.65, 0.125: 0.39},
        },
        2048: {
            (16, 16): {0.5: 1.95, 0.25: 0.96, 0.125: 0.67},
            (32, 32): {0.5: 1.22, 0.25: 0.69, 0.125: 0.46},
            (64, 64): {0.5: 1.01, 0.25: 0.59, 0.125: 0.40},
            (128, 128): {0.5: 0.83, 0.25: 0.43, 0.125: 0.27},
        },
    },
}

# Time of batched over time of the dense product, forward only, for so many tokens and fewer, by platform, then by side
# of a square weight, block and density.
#
# cpu: `python -m benchmarks.kernels --preset few`, float32, medians of six runs of it, each a ratio of medians; the
# machine is the one above. With few tokens xla is no choice: it took up to 8.6 times the dense product's time.
#
# gpu and tpu have no rows: nothing was timed there.
BATCHED_OVER_DENSE: Mapping[str, Mapping[int, BySide]] = {
    "cpu": {
        1: {
            512: {
                (16, 16): {0.5: 1.30, 0.25: 1.11, 0.125: 0.70},
                (32, 32): {0.5: 1.39, 0.25: 1.06, 0.125: 0.69},
                (64, 64): {0.5: 1.07, 0.25: 0.65, 0.125: 0.71},
                (128, 128): {0.5: 1.68, 0.25: 0.76, 0.125: 0.61},
            },
            2048: {
                (16, 16): {0.5: 0.67, 0.25: 0.49, 0.125: 0.27},
                (32, 32): {0.5: 0.69, 0.25: 0.44, 0.125: 0.27},
                (64, 64): {0.5: 0.73, 0.25: 0.47, 0.125: 0.31},
                (128, 128): {0.5: 0.79, 0.25: 0.48, 0.125: 0.35},
            },
        },
        8: {
            512: {
                (16, 16): {0.5: 1.10, 0.25: 0.92, 0.125: 0.52},
                (32, 32): {0.5: 0.66, 0.25: 0.62, 0.125: 0.39},
                (64, 64): {0.5: 0.77, 0.25: 0.52, 0.125: 0.40},
                (128, 128): {0.5: 0.65, 0.25: 0.51, 0.125: 0.41},
            },
            2048: {
                (16, 16): {0.5: 1.55, 0.25: 0.75, 0.125: 0.39},
                (32, 32): {0.5: 0.72, 0.25: 0.39, 0.125: 0.23},
                (64, 64): {0.5: 0.72, 0.25: 0.39, 0.125: 0.23},
                (128, 128): {0.5: 0.69, 0.25: 0.36, 0.125: 0.21},
            },
        },
        32: {
            512: {
                (16, 16): {0.5: 1.38, 0.25: 0.86, 0.125: 0.45},
                (32, 32): {0.5: 1.10, 0.25: 0.72, 0.125: 0.44},
                (64, 64): {0.5: 0.62, 0.25: 0.50, 0.125: 0.36},
                (128, 128): {0.5: 0.73, 0.25: 0.49, 0.125: 0.45},
            },
            2048: {
                (16, 16): {0.5: 3.37, 0.25: 0.95, 0.125: 0.49},
                (32, 32): {0.5: 0.82, 0.25: 0.47, 0.125: 0.24},
                (64, 64): {0.5: 0.54, 0.25: 0.30, 0.125: 0.17},
                (128, 128): {0.5: 0.56, 0.25: 0.29, 0.125: 0.17},
            },
        },
    },
}

# Bundles of pallas_tpu over those of a dense product for the same multiplications, forward + backward, where lines have
# one block and where they have four, by chip and side of a block. Times density it is the ratio to the dense layer.
#
# Counted, not timed: `python -m benchmarks.tpu_schedule`, in the schedules of the TPU compiler that jax 0.10.2 pins;
# the dense product is the faster of a tuned one and XLA's, at no less than what the matrix units need.
#
# pallas_gpu has no rows: until it has run on a GPU, it is taken by name only.
PALLAS_TPU_OVER_DENSE: Mapping[tuple[str, int], tuple[float, float]] = {
    ("v4", 128): (3.8, 1.75),
    ("v5e", 128): (1.35, 1.0),
    ("v5p", 128): (1.45, 1.03),
    ("v6e", 128): (4.1, 2.5),
    ("v6e", 256): (1.5, 1.1),
    ("tpu7x", 128): (4.5, 2.7),
    ("tpu7x", 256): (1.75, 1.05),
}
_LONG_LINE = 4

# Below this ratio a sparse product is chosen; above it transient, which takes the dense product's time within 5 %.
_WORTHWHILE = 0.95

# A request of 0.25 may be realised as 0.26: it is still the cell of 0.25.
_ROUNDED_BLOCKS = 1.1


def resolve(
    implementation: str,
    *,
    target: Target,
    grid: BlockGrid,
    density: float,
    dtype: DTypeLike,
    tokens: int | None = None,
) -> str:
    """The concrete implementation for one weight.

    Args:
      implementation: ``"auto"``, a kernel for accelerators (``KERNELS``), whose tiles depend on the chip, or another
        name of ``IMPLEMENTATIONS``, returned as it is.
      target: what the program will run on.
      grid: the weight's grid.
      density: its realised density, in (0, 1].
      dtype: of the activations.
      tokens: rows of the products; None is a training batch, of which there are many.

    Returns:
      A key of ``IMPLEMENTATIONS``; for a kernel with the chip, for example ``"pallas_tpu@v5e"``.

    Under ``"auto"`` a TPU gets its kernel where the schedules say that it issues less than the dense product does.
    On a CPU few tokens get ``batched`` where it was measured to be faster than the dense product, by the least measured
    count of tokens that is not below ``tokens``, and many get ``xla`` where that was. Otherwise, and without a cell,
    the answer is ``"transient"``. In both tables a weight that was not measured counts as the widest measured one that
    fits inside it, a block likewise, a density as the next higher measured one (one up to a tenth below it still
    counts, because counts are rounded to whole blocks).

    Raises:
      ConfigError: the implementation is unknown, has no tiles for the chip, or does not support grid or dtype.
    """
    if implementation == "auto":
        if target.platform == "tpu":
            return _best_on_tpu(target, grid, density, dtype)
        return _best_for_few(target, grid, density, tokens) or _best(target, grid, density)
    name = f"{implementation}@{target.chip}" if implementation in KERNELS else implementation
    if name not in IMPLEMENTATIONS:
        raise ConfigError(f"model.implementation={implementation}: {_no_such(implementation, target)}")
    reason = unsupported(name, grid, dtype)
    if reason:
        raise ConfigError(f"model.implementation={implementation}: does not support {described(grid, dtype)}: {reason}")
    return name


def _no_such(implementation: str, target: Target) -> str:
    if implementation not in KERNELS:
        legal = ("auto", *(name for name in IMPLEMENTATIONS if "@" not in name), *KERNELS)
        return f"unknown; use one of {', '.join(legal)}"
    chips = [name.partition("@")[2] for name in IMPLEMENTATIONS if name.startswith(f"{implementation}@")]
    unlisted = "" if target.platform == "cpu" else " that is not in hardware/chips.py"
    device = target.chip or f"a {target.platform}{unlisted}"
    return f"is for {', '.join(chips)}, and this run is on {device}; use auto"


def _best_on_tpu(target: Target, grid: BlockGrid, density: float, dtype: DTypeLike) -> str:
    name = f"pallas_tpu@{target.chip}"
    sides = [side for chip, side in PALLAS_TPU_OVER_DENSE if chip == target.chip and side <= min(grid.block)]
    if target.chip is None or not sides or unsupported(name, grid, dtype) or jnp.dtype(dtype) != jnp.bfloat16:
        return "transient"
    one, four = PALLAS_TPU_OVER_DENSE[target.chip, max(sides)]
    ratio = density * (four if density * min(grid.rows, grid.columns) >= _LONG_LINE else one)
    fits = tpu_tiles.fits(chip_named(target.chip), grid, math.ceil(density * grid.cells), dtype)
    return name if fits and ratio < _WORTHWHILE else "transient"


def _best_for_few(target: Target, grid: BlockGrid, density: float, tokens: int | None) -> str:
    """The choice for few tokens; the empty string where there are more than were measured, or none were."""
    by_tokens = BATCHED_OVER_DENSE[target.platform] if target.platform in BATCHED_OVER_DENSE else {}
    counts = [count for count in by_tokens if tokens is not None and tokens <= count]
    if not counts:
        return ""
    return "batched" if _worthwhile(by_tokens[min(counts)], grid, density) else "transient"


def _best(target: Target, grid: BlockGrid, density: float) -> str:
    by_side = XLA_OVER_DENSE.get((target.platform, grid.balance), {})
    return "xla" if _worthwhile(by_side, grid, density) else "transient"


def _worthwhile(by_side: BySide, grid: BlockGrid, density: float) -> bool:
    """Whether the cell of a table that stands for the weight is clearly below 1; False where none does."""
    sides = [side for side in by_side if side <= min(grid.shape)]
    if grid.unstructured or not sides:
        return False
    by_block = by_side[max(sides)]
    fitting = [block for block in by_block if block[0] <= grid.block[0] and block[1] <= grid.block[1]]
    if not fitting:
        return False
    by_density = by_block[max(fitting, key=lambda block: (block[0] * block[1], block))]
    cells = [(d, ratio) for d, ratio in by_density.items() if d >= density / _ROUNDED_BLOCKS]
    return bool(cells) and min(cells)[1] < _WORTHWHILE
