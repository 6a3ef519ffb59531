"""Densities that fall during training (gradual magnitude pruning, Zhu and Gupta 2017), on the host, in integers.

Arrays cannot shrink inside a compiled program, so slots come down a staircase: between two stairs the counts fall
exactly at every rewiring and leave free slots, and at a stair the arrays are cut and the programs compiled again.
"""

from __future__ import annotations

from sparsejax.config import TopologyConfig
from sparsejax.topology.schedules import interpolate, last_rewiring_step

# Compilations after the first one.
STAIRS = 8


def decays(topology: TopologyConfig) -> bool:
    """Whether the density of this run falls."""
    return topology.density_schedule != "constant"


def density_at(topology: TopologyConfig, step: int, steps: int) -> float:
    """Density after ``step`` of ``steps``: that of the last rewiring up to there.

    From ``density_start`` at step 0 to ``density`` at ``stop_fraction * steps``, with ``x`` the fraction of the way:
    cosine and linear as in ``schedules.interpolate``, cubic ``density + (density_start - density) (1 - x)^3``.
    """
    if not decays(topology):
        return topology.density
    start, end = topology.density_start, topology.density
    # The last rewiring must reach the end, wherever the interval puts it.
    last = last_rewiring_step(steps, topology.stop_fraction) // topology.every * topology.every
    step = step // topology.every * topology.every
    if topology.density_schedule == "cubic":
        x = min(max(step / last, 0.0), 1.0) if last > 0 else 1.0
        return end + (start - end) * (1 - x) ** 3
    return interpolate(topology.density_schedule, start, end, step, last)


def capacity_density_at(topology: TopologyConfig, step: int, steps: int) -> float:
    """Density that the slots after ``step`` have room for: the lowest stair not below ``density_at``.

    The stairs are ``density_start * (density / density_start)^(i / 8)``; the last one has no room to spare.
    """
    if not decays(topology):
        return topology.density
    density, start = density_at(topology, step, steps), topology.density_start
    ratio = topology.density / start
    stairs = [start * ratio ** (i / STAIRS) for i in range(STAIRS)] + [topology.density]
    return min(stair for stair in stairs if stair >= density - 1e-12)


def stair_steps(topology: TopologyConfig, steps: int) -> list[int]:
    """The steps after which the slots come down a stair, in order."""
    rewirings = range(topology.every, last_rewiring_step(steps, topology.stop_fraction) + 1, topology.every)
    stairs = {step: capacity_density_at(topology, step, steps) for step in (0, *rewirings)}
    return [step for step in rewirings if stairs[step] != stairs[step - topology.every]]
