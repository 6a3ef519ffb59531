"""``implementation="auto"``: the fastest measured choice, looked up on the host before anything compiles.

The target is an argument: the host that compiles is not always the device that runs, so nothing here asks JAX
which backend is present.
"""

from __future__ import annotations

from collections.abc import Mapping

from jax.typing import DTypeLike

from sparsejax.config import ConfigError
from sparsejax.hardware.target import Target
from sparsejax.kernels.api import IMPLEMENTATIONS, described, unsupported
from sparsejax.topology.blocks import Balance, BlockGrid

Block = tuple[int, int]

# Kernels for accelerators: in IMPLEMENTATIONS once for every chip that they have tiles for.
KERNELS = ("pallas_tpu", "pallas_gpu")

# Time of xla over time of the dense product, forward + backward, by platform, balance, block and density.
#
# cpu: `python -m benchmarks.kernels --block <b> <b> --balance <balance> --implementation xla --product both
# --repetitions 3`, 2048 x 2048, 2048 tokens, float32, medians of wall clock; 2 cores of an Intel Sapphire Rapids
# server, jax 0.10.2. Cells above 0.9 could go either way.
#
# gpu and tpu have no rows: without a kernel of their own, loops of small products and gathers of activation slabs
# lose to one dense product on both (estimated at 0.85 of dense or worse before launch costs), so they get transient.
XLA_OVER_DENSE: Mapping[tuple[str, Balance], Mapping[Block, Mapping[float, float]]] = {
    ("cpu", "none"): {
        (32, 32): {0.5: 1.63, 0.25: 0.92, 0.125: 0.69},
        (128, 128): {0.5: 1.45, 0.25: 0.57, 0.125: 0.39},
    },
    ("cpu", "column"): {
        (32, 32): {0.5: 1.39, 0.25: 0.72, 0.125: 0.45},
        (128, 128): {0.5: 0.82, 0.25: 0.54, 0.125: 0.37},
    },
}

# Narrower weights get transient: at 1024 tokens, block 32 and density 0.25, xla took 1.35 (any topology) and 1.02
# (balanced) of the dense product at 512 x 512, and 1.30 and 1.05 at 512 x 1376, on the machine of the table.
_SMALLEST_SIDE = 1024

# Below this ratio xla is chosen; above it transient, whose time is that of the dense product give or take 5 %.
_WORTHWHILE = 0.95

# A request of 0.25 may be realised as 0.26: it is still the cell of 0.25.
_ROUNDED_BLOCKS = 1.1


def resolve(implementation: str, *, target: Target, grid: BlockGrid, density: float, dtype: DTypeLike) -> str:
    """The concrete implementation for one weight.

    Args:
      implementation: ``"auto"``, a kernel for accelerators (``KERNELS``), whose tiles depend on the chip, or another
        name of ``IMPLEMENTATIONS``, returned as it is.
      target: what the program will run on.
      grid: the weight's grid.
      density: its realised density, in (0, 1].
      dtype: of the activations.

    Returns:
      A key of ``IMPLEMENTATIONS``; for a kernel with the chip, for example ``"pallas_tpu@v5e"``.

    Under ``"auto"`` a block that was not measured counts as the largest measured one that fits inside it, a density
    as the next higher measured one (one up to a tenth below it still counts, because counts are rounded to whole
    blocks); without such a cell, and for a weight with a side under 1024, the answer is ``"transient"``.

    Raises:
      ConfigError: the implementation is unknown, has no tiles for the chip, or does not support grid or dtype.
    """
    if implementation == "auto":
        return _measured_best(target, grid, density)
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
    device = target.chip or f"a {target.platform} that is not in hardware/chips.py"
    return f"is for {', '.join(chips)}, and this run is on {device}; use auto"


def _measured_best(target: Target, grid: BlockGrid, density: float) -> str:
    measured = XLA_OVER_DENSE.get((target.platform, grid.balance), {})
    fitting = [block for block in measured if block[0] <= grid.block[0] and block[1] <= grid.block[1]]
    if grid.unstructured or not fitting or min(grid.shape) < _SMALLEST_SIDE:
        return "transient"
    by_density = measured[max(fitting, key=lambda block: (block[0] * block[1], block))]
    cells = [(d, ratio) for d, ratio in by_density.items() if d >= density / _ROUNDED_BLOCKS]
    return "xla" if cells and min(cells)[1] < _WORTHWHILE else "transient"
