"""The weights of a run as dense matrices ``[out, in]`` with block masks, whatever their storage.

Axes: L layers, K input width, N output width, n slots, bk x bn the block, R x C block rows and columns; of Monarch
factors b blocks and their inner width i, as in ``models/monarch.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax.interop.llama_tensors import EMBEDDING, HEAD, LINEARS, NORM, NORMS, layer_tensor
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology.blocks import BlockGrid
from sparsejax.topology.nm import NmPattern, nm_mask

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Matrix:
    """One weight of one layer: ``dense_KN`` float32, and which of its blocks ``[R, C]`` are active, None for all."""

    dense_KN: np.ndarray
    active_RC: np.ndarray | None


class RunWeights:
    """Tensors of a run by their names in a LLaMA checkpoint; each is made when it is asked for."""

    def __init__(self, params: Tree, topology: Tree, weights: Mapping[str, SparseWeight], layers: int) -> None:
        """Take the trees of a run as NumPy arrays, its density table and its depth."""
        self._params, self._topology, self._weights = params, topology, weights
        self._linears = {
            layer_tensor(layer, module): (kind, layer) for layer in range(layers) for kind, module in LINEARS.items()
        }
        self._norms = {
            layer_tensor(layer, module): (norm, layer) for layer in range(layers) for norm, module in NORMS.items()
        }

    def tensor(self, name: str) -> np.ndarray:
        """One tensor, float32, ``[out, in]`` for a matrix; exactly 0.0, never -0.0, outside active blocks."""
        if name in self._linears:
            return self._matrix(*self._linears[name]).dense_KN.T
        if name in self._norms:
            norm, layer = self._norms[name]
            return self._params["layers"][norm]["scale"][layer]
        module, leaf = {EMBEDDING: ("embed", "embedding"), NORM: ("norm", "scale"), HEAD: ("head", "kernel")}[name]
        array: np.ndarray = self._params[module][leaf]
        return array.T if name == HEAD else array

    def masks(self) -> dict[str, np.ndarray]:
        """Active blocks of every sparse weight, bool ``[C, R]``: out by in."""
        found = {name: self._matrix(kind, layer).active_RC for name, (kind, layer) in self._linears.items()}
        return {name: np.ascontiguousarray(active.T) for name, active in found.items() if active is not None}

    def _matrix(self, kind: str, layer: int) -> Matrix:
        weight = self._weights[kind]
        room, name = kind.split(".")
        leaves = {key: array[layer] for key, array in self._params["layers"][room][name].items()}
        if weight.packed:
            index = {key: array[layer] for key, array in self._topology["layers"][room][name].items()}
            return _from_blocks(leaves["values"], index, weight.grid)
        if isinstance(weight.structure, NmPattern):
            flow: dict[str, Any] = {"used": weight.structure.used, "faded": 0.0}
            if weight.structure.flow != "none":
                flow = {key: array[layer] for key, array in self._topology["layers"][room][name].items()}
            return _from_master(leaves["kernel"], weight.structure.group, int(flow["used"]), float(flow["faded"]))
        if weight.storage == "monarch":
            return Matrix(_from_factors(leaves["first"], leaves["second"]), None)
        return Matrix(leaves["kernel"], None)


def _from_blocks(values: np.ndarray, index: Mapping[str, np.ndarray], grid: BlockGrid) -> Matrix:
    """Active blocks ``[n, bk, bn]`` put at their places; free slots, which stand for no block, are left out."""
    if grid.unstructured:
        rows, cols = np.divmod(index["flat"], grid.shape[1])
        used = index["flat"] < grid.cells
    else:
        rows, cols = index["rows"], index["cols"]
        used = cols < grid.columns
    cells = np.zeros((grid.rows, grid.columns, *grid.block), np.float32)
    cells[rows[used], cols[used]] = values[used]
    active_RC = np.zeros((grid.rows, grid.columns), bool)
    active_RC[rows[used], cols[used]] = True
    return Matrix(cells.transpose(0, 2, 1, 3).reshape(grid.shape), active_RC)


def _from_master(kernel_KN: np.ndarray, group: int, used: int, faded: float) -> Matrix:
    """Dense master weights as ``models.masked_linear`` multiplies them; dense while unused weights still fade."""
    active_KN = np.asarray(nm_mask(jnp.asarray(kernel_KN), used, group))
    dense_KN = np.where(active_KN, kernel_KN, kernel_KN * np.float32(faded) if faded else np.float32(0))
    return Matrix(dense_KN, None if faded or used == group else active_KN)


def _from_factors(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The product ``[K, N]`` of ``first [b, K / b, i]`` and ``second [b, i, N / b]``, summed in float64."""
    blocks, inputs, inner = first.shape
    # What each single input makes of a block row: nothing outside the block it lies in.
    z_KbI = np.zeros((blocks, inputs, blocks, inner))
    for block in range(blocks):
        z_KbI[block, :, block] = first[block]
    u_KbI = z_KbI.reshape(-1, blocks, inner).swapaxes(1, 2).reshape(-1, blocks, inner)
    y_bKq = u_KbI.swapaxes(0, 1) @ second.astype(np.float64)
    return y_bKq.swapaxes(0, 1).reshape(blocks * inputs, -1).astype(np.float32)
