"""How many blocks each weight kind gets (sparse-training literature: uniform, Erdos-Renyi-Kernel)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from sparsejax.config import ConfigError
from sparsejax.topology.blocks import BlockGrid


def allocate(
    grids: Mapping[str, BlockGrid],
    density: float,
    allocation: str,
    attention_mlp_ratio: float,
    rules: Sequence[str],
) -> dict[str, int]:
    """Active blocks of every weight kind, one exact count a layer, a multiple of the shares.

    The realised density of a kind is ``count / cells``; it is the nearest to the request that blocks and
    shares allow, never less than one block a share.

    Args:
      grids: the grid of each kind, for example ``{"attention.q": BlockGrid(...)}``.
      density: requested share of active elements over all kinds that no rule names, in (0, 1].
      allocation: ``"uniform"`` or ``"erk"``, see ``densities``.
      attention_mlp_ratio: density of attention kinds over density of MLP kinds, at the same total.
      rules: ``"<regex>=<density>"``; the first rule whose regex matches a whole kind name fixes its density.

    Raises:
      ConfigError: a rule matches no weight kind.
    """
    fixed = _fixed_by_rules(grids, rules)
    free = {name: grid for name, grid in grids.items() if name not in fixed}
    wanted = densities(free, density, allocation, attention_mlp_ratio) | fixed
    return {name: nearest_count(wanted[name], grid) for name, grid in grids.items()}


def densities(
    grids: Mapping[str, BlockGrid], density: float, allocation: str, attention_mlp_ratio: float
) -> dict[str, float]:
    """Densities before rounding, summing to ``density`` of all elements.

    ``density_l = eps * raw_l`` with ``raw_l = 1`` (uniform) or ``(K + N) / (K * N)`` (ERK: Mocanu et al. 2018,
    Evci et al. 2020), times ``attention_mlp_ratio`` for attention kinds. Kinds that would exceed 1 become
    dense and ``eps`` is solved again for the others (water filling), until none exceeds 1.
    """
    elements = {name: grid.shape[0] * grid.shape[1] for name, grid in grids.items()}
    raw = {}
    for name, grid in grids.items():
        (width_in, width_out) = grid.shape
        raw[name] = (width_in + width_out) / (width_in * width_out) if allocation == "erk" else 1.0
        raw[name] *= attention_mlp_ratio if name.startswith("attention.") else 1.0
    budget = density * sum(elements.values())
    full: set[str] = set()
    while len(full) < len(grids):
        left = budget - sum(elements[name] for name in full)
        eps = left / sum(raw[name] * elements[name] for name in grids if name not in full)
        over = {name for name in grids if name not in full and eps * raw[name] > 1.0 + 1e-12}
        if not over:
            return {name: 1.0 if name in full else min(1.0, eps * raw[name]) for name in grids}
        full |= over
    return dict.fromkeys(grids, 1.0)


def nearest_count(density: float, grid: BlockGrid) -> int:
    """The multiple of the shares nearest to ``density * cells``, at least one block a share."""
    per_share = round(density * grid.cells_per_share)
    return grid.shards * min(max(per_share, 1), grid.cells_per_share)


def _fixed_by_rules(grids: Mapping[str, BlockGrid], rules: Sequence[str]) -> dict[str, float]:
    fixed: dict[str, float] = {}
    for rule in rules:
        pattern, _, text = rule.rpartition("=")
        matched = [name for name in grids if re.fullmatch(pattern, name)]
        if not matched:
            raise ConfigError(f"topology.rules={rule!r}: matches no weight; the weights are {', '.join(grids)}")
        value = float(text)
        if not (math.isfinite(value) and 0 < value <= 1):
            raise ConfigError(f"topology.rules={rule!r}: the density must be in (0, 1]")
        for name in matched:
            fixed.setdefault(name, value)
    return fixed
