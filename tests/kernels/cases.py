"""Weights the contract suite runs every implementation on, with their dense matrices made by plain loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from sparsejax.topology.blocks import BlockGrid, BlockSparse, index_from_mask, validate


@dataclasses.dataclass(frozen=True)
class Case:
    """One weight: its grid, which blocks are active, how many slots are free, how many tokens meet it."""

    grid: BlockGrid
    mask: Callable[[BlockGrid, np.random.Generator], np.ndarray]
    free: int
    tokens: int


def scattered(grid: BlockGrid, rng: np.random.Generator) -> np.ndarray:
    """A third of every share, with block row 0 and block column 0 empty."""
    axis = 0 if grid.shard_axis == "rows" else 1
    shares = []
    for part in np.split(np.zeros((grid.rows, grid.columns), bool), grid.shards, axis=axis):
        inner = [(i, j) for i in range(1, part.shape[0]) for j in range(1, part.shape[1])]
        for pick in rng.permutation(len(inner))[: max(1, part.size // 3)]:
            part[inner[pick]] = True
        shares.append(part)
    return np.concatenate(shares, axis=axis)


def cross(grid: BlockGrid, rng: np.random.Generator) -> np.ndarray:
    """Block row 1 and block column 1 full, everything else empty."""
    del rng
    mask = np.zeros((grid.rows, grid.columns), bool)
    mask[1, :] = mask[:, 1] = True
    return mask


def single(grid: BlockGrid, rng: np.random.Generator) -> np.ndarray:
    """One active block, the last one."""
    del rng
    mask = np.zeros((grid.rows, grid.columns), bool)
    mask[-1, -1] = True
    return mask


def full(grid: BlockGrid, rng: np.random.Generator) -> np.ndarray:
    """Every block active."""
    del rng
    return np.ones((grid.rows, grid.columns), bool)


def balanced(blocks: int) -> Callable[[BlockGrid, np.random.Generator], np.ndarray]:
    """``blocks`` blocks a share, spread over its columns as ``BlockGrid.column_counts`` says."""

    def mask(grid: BlockGrid, rng: np.random.Generator) -> np.ndarray:
        shares = []
        for _ in range(grid.shards):
            part = np.zeros((grid.share_rows, grid.share_columns), bool)
            for column, count in enumerate(grid.column_counts(blocks)):
                part[rng.permutation(grid.share_rows)[:count], column] = True
            shares.append(part)
        return np.concatenate(shares, axis=0 if grid.shard_axis == "rows" else 1)

    return mask


CASES = {
    "unstructured": Case(BlockGrid((6, 8), (1, 1)), scattered, free=3, tokens=7),
    "flat": Case(BlockGrid((8, 12), (1, 4)), cross, free=2, tokens=7),
    "square": Case(BlockGrid((32, 48), (8, 8)), scattered, free=2, tokens=7),
    "column_shares": Case(BlockGrid((64, 256), (16, 32), 2, "columns"), scattered, free=2, tokens=7),
    "row_shares": Case(BlockGrid((64, 96), (16, 32), 2, "rows"), full, free=4, tokens=5),
    "one_block": Case(BlockGrid((256, 384), (128, 128)), single, free=0, tokens=1),
    "wide_blocks": Case(BlockGrid((256, 384), (128, 128)), cross, free=1, tokens=7),
    "wide_column_shares": Case(BlockGrid((256, 512), (128, 128), 2, "columns"), scattered, free=2, tokens=23),
    "wide_row_shares": Case(BlockGrid((512, 256), (128, 128), 2, "rows"), scattered, free=1, tokens=40),
    "long_columns": Case(BlockGrid((1408, 128), (128, 128)), full, free=0, tokens=9),
    "one_of_64": Case(BlockGrid((1024, 1024), (128, 128)), single, free=0, tokens=3),
    "rectangular": Case(BlockGrid((512, 512), (128, 256)), scattered, free=0, tokens=17),
    "wide_balanced": Case(BlockGrid((512, 384), (128, 128), balance="column"), balanced(5), free=0, tokens=16),
    "balanced": Case(BlockGrid((32, 48), (8, 8), balance="column"), balanced(15), free=0, tokens=7),
    "balanced_column_shares": Case(BlockGrid((32, 48), (8, 8), 2, "columns", "column"), balanced(2), free=0, tokens=7),
    "balanced_row_shares": Case(BlockGrid((32, 48), (8, 8), 2, "rows", "column"), balanced(8), free=0, tokens=7),
    "balanced_full": Case(BlockGrid((64, 64), (16, 32), balance="column"), balanced(8), free=0, tokens=1),
}


def make_weight(case: Case, seed: int) -> BlockSparse:
    """The weight of a case with float32 normal values."""
    grid, rng = case.grid, np.random.default_rng(seed)
    mask = case.mask(grid, rng)
    axis = 0 if grid.shard_axis == "rows" else 1
    fullest = max(int(part.sum()) for part in np.split(mask, grid.shards, axis=axis))
    index = index_from_mask(mask, grid, grid.shards * fullest + case.free * grid.shards)
    draft = BlockSparse(jnp.zeros((0, *grid.block)), index, grid)
    active = np.asarray(draft.cols) < grid.columns
    values = rng.standard_normal((active.size, *grid.block)) * active[:, None, None]
    weight = dataclasses.replace(draft, values=jnp.asarray(values, jnp.float32))
    validate(weight)
    return weight


def dense_float64(weight: BlockSparse) -> np.ndarray:
    """``[K, N]`` float64, block by block."""
    (bk, bn), dense = weight.grid.block, np.zeros(weight.grid.shape)
    places = zip(np.asarray(weight.rows), np.asarray(weight.cols), strict=True)
    for slot, (row, col) in enumerate(places):
        if col < weight.grid.columns:
            dense[row * bk : (row + 1) * bk, col * bn : (col + 1) * bn] = weight.values[slot]
    return dense


def blocks_float64(dense_KN: np.ndarray, weight: BlockSparse) -> np.ndarray:
    """The blocks of ``dense_KN`` at the weight's places, ``[n, bk, bn]``; 0 in free slots."""
    (bk, bn), blocks = weight.grid.block, np.zeros(weight.values.shape)
    places = zip(np.asarray(weight.rows), np.asarray(weight.cols), strict=True)
    for slot, (row, col) in enumerate(places):
        if col < weight.grid.columns:
            blocks[slot] = dense_KN[row * bk : (row + 1) * bk, col * bn : (col + 1) * bn]
    return blocks
