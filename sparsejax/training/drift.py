"""How far trained weights are from where they began, and how far the masks of several runs agree.

Mukherjee et al. 2025, "Reinforcement Learning Finetunes Small Subnetworks in Large Language Models", measured for
pretraining: how many weights moved at all, the rank of the change, and whether other seeds arrive at the same mask.
The distance between masks is the SAD of SR-STE (Zhou et al. 2021). Plain NumPy on the host, one kind of weight at a
time. Axes: L layers, K x N the weight, R x C its blocks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations

import jax
import numpy as np

from sparsejax.config import ConfigError
from sparsejax.models import functional
from sparsejax.topology.blocks import BlockGrid, BlockSparse, Index, to_dense
from sparsejax.topology.stats import activity
from sparsejax.training.recipe import Recipe, index_of, values_of
from sparsejax.training.state import Tree

# Compiled once a grid, which is static.
_written_out = jax.jit(jax.vmap(to_dense))

# A singular value decomposition of a weight wider than this takes minutes.
RANK_LIMIT = 1024


@dataclasses.dataclass(frozen=True)
class StackedWeight:
    """One kind of weight in all layers.

    Attributes:
      dense_LKN: float32, zero outside the active blocks.
      active_LRC: bool, the places of the active blocks; all True for a dense weight, whose blocks are its elements.
    """

    dense_LKN: np.ndarray
    active_LRC: np.ndarray


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number of the report: ``run`` and ``other`` are names of runs, ``other`` is empty for a run by itself."""

    run: str
    other: str
    weight: str
    measure: str
    value: float


def unmoved(start: StackedWeight, end: StackedWeight, tolerance: float) -> float:
    """Share of the weights active at the start or at the end with ``|end - start| < tolerance``."""
    ever_LRC = start.active_LRC | end.active_LRC
    ever_LKN = _elements(ever_LRC, end.dense_LKN.shape)
    still_LKN = np.abs(end.dense_LKN - start.dense_LKN) < tolerance
    return float(np.sum(still_LKN & ever_LKN) / np.sum(ever_LKN))


def overlap(one_LRC: np.ndarray, other_LRC: np.ndarray) -> float:
    """Share of the active places of ``one`` that are active in ``other`` too, over all layers."""
    return float(np.sum(one_LRC & other_LRC) / np.sum(one_LRC))


def overlap_by_chance(other_LRC: np.ndarray) -> float:
    """The overlap expected of a mask that knows nothing of ``other``: the density of ``other``."""
    return float(np.mean(other_LRC))


def mask_distance(one_LRC: np.ndarray, other_LRC: np.ndarray) -> int:
    """``sum |m - m'|``, the number of places active in exactly one of the two masks (SAD, SR-STE section 3)."""
    return int(np.sum(one_LRC ^ other_LRC))


def rank_share(change_LKN: np.ndarray) -> float:
    """Numerical rank of the change over ``min(K, N)``, mean over layers.

    Singular values up to ``max(K, N) * eps * largest`` count as zero, with the ``eps`` of float32. NaN where a change
    is not a finite number.
    """
    if not np.isfinite(change_LKN).all():
        return math.nan
    ranks = [np.linalg.matrix_rank(change_KN) for change_KN in change_LKN]
    return float(np.mean(ranks) / min(change_LKN.shape[1:]))


def stacked_weight(recipe: Recipe, params: Tree, topology: Tree, name: str) -> StackedWeight:
    """One kind of weight of a model, for example ``"attention.q"``, written out."""
    weight = recipe.weights[name]
    if weight.dense:
        room, kind = name.split(".")
        kernel_LKN = np.asarray(params["layers"][room][kind]["kernel"])
        return StackedWeight(kernel_LKN, np.ones(kernel_LKN.shape, bool))
    index, grid = index_of(topology, name), weight.grid
    dense_LKN = _written_out(BlockSparse(values_of(params, name), index, grid))
    return StackedWeight(np.asarray(dense_LKN), np.asarray(_places(index, grid)))


def drift(run: str, recipe: Recipe, params: Tree, topology: Tree, tolerance: float) -> list[Measure]:
    """How far each kind of weight of a run is from its own first values, which follow from the seeds.

    The measures: ``unmoved``, ``initial_overlap`` and ``mask_distance`` (of the masks at the end and at the start),
    and ``rank_share`` where both widths are at most ``RANK_LIMIT``.

    Raises:
      ConfigError: the weights are not stored as blocks or plain kernels, or the run began from dense weights, which
        no seed gives.
    """
    if recipe.run.init.from_:
        raise ConfigError(
            f"--runs={run}: began from dense weights (init.from={recipe.run.init.from_}), and the first weights that "
            "runs are compared with here follow from their seeds; leave it out"
        )
    if recipe.run.topology.storage != "packed":
        raise ConfigError(f"topology.storage={recipe.run.topology.storage}: drift is reported of packed weights only")
    seeds, begun = recipe.run.seeds, recipe.at_stage(0)
    fresh = partial(functional.initial_trees, partial(begun.build, seeds.init, seeds.topology))
    first_params, first_topology = jax.jit(fresh)()
    rows = []
    for name, weight in recipe.weights.items():
        start = stacked_weight(begun, first_params, first_topology, name)
        end = stacked_weight(recipe, params, topology, name)
        found = {
            "unmoved": unmoved(start, end, tolerance),
            "initial_overlap": overlap(end.active_LRC, start.active_LRC),
            "mask_distance": float(mask_distance(end.active_LRC, start.active_LRC)),
        }
        if max(weight.grid.shape) <= RANK_LIMIT:
            found["rank_share"] = rank_share(end.dense_LKN - start.dense_LKN)
        rows += [Measure(run, "", name, measure, value) for measure, value in found.items()]
    return rows


def masks(recipe: Recipe, topology: Tree) -> dict[str, np.ndarray]:
    """The masks ``[L, R, C]`` of the sparse kinds."""
    return {name: np.asarray(_places(index_of(topology, name), weight.grid)) for name, weight in recipe.sparse.items()}


def agreement(found: Sequence[tuple[str, dict[str, np.ndarray]]]) -> list[Measure]:
    """How far the masks of runs agree: ``overlap`` beside ``overlap_by_chance``, for every pair and kind.

    Args:
      found: name and masks of every run, see ``masks``.

    Raises:
      ConfigError: two runs do not cut a weight into the same blocks.
    """
    rows = []
    for (run, mine), (other, theirs) in combinations(found, 2):
        for name in [name for name in mine if name in theirs]:
            one_LRC, other_LRC = mine[name], theirs[name]
            if one_LRC.shape != other_LRC.shape:
                raise ConfigError(
                    f"--runs={run},{other}: {name} has blocks {one_LRC.shape} in one and {other_LRC.shape} in the "
                    "other (layers, rows, columns); compare runs of one model size and one topology.block"
                )
            rows.append(Measure(run, other, name, "overlap", overlap(one_LRC, other_LRC)))
            rows.append(Measure(run, other, name, "overlap_by_chance", overlap_by_chance(other_LRC)))
    return rows


@partial(jax.jit, static_argnames="grid")
def _places(index: Index, grid: BlockGrid) -> jax.Array:
    return jax.vmap(lambda one: activity(one, grid))(index)


def _elements(active_LRC: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask of blocks as a mask of elements, ``[L, K, N]``."""
    _, rows, columns = active_LRC.shape
    return active_LRC.repeat(shape[1] // rows, axis=1).repeat(shape[2] // columns, axis=2)
