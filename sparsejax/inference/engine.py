"""A trained model with its compiled programs for reading and writing text.

There is one program for prompts and one for the next token, for each number of rows and each bucket of lengths: a
power of two, so that few are ever compiled. Products are chosen for the tokens that a program multiplies at a time:
few in a step, many in a prompt (``kernels/auto.py``). Weights that no product of the device reads block by block are
made dense once.

Axes: B rows, T tokens, S capacity of the cache, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from sparsejax.config import ModelConfig
from sparsejax.hardware.target import target_of
from sparsejax.inference.cache import Cache, extend, prefill
from sparsejax.inference.frozen import frozen
from sparsejax.inference.sampling import Sampling, draw_rows
from sparsejax.inference.vocabulary import Absent, without_absent
from sparsejax.kernels import auto
from sparsejax.models import attention, functional
from sparsejax.models.functional import Tree
from sparsejax.models.llama import Llama
from sparsejax.models.weight_table import SparseWeight

# Prompts shorter than this share a program.
_SHORTEST_BUCKET = 16

_ROWS = "rows"
BY_ROW, _WHOLE = PartitionSpec(_ROWS), PartitionSpec()
_CACHE = Cache(PartitionSpec(None, _ROWS), PartitionSpec(None, _ROWS), BY_ROW)  # type: ignore[arg-type]

Program = Any


def bucket(length: int, most: int) -> int:
    """The length that a program is compiled for: a power of two from 16 on, but never above ``most``."""
    return min(max(_SHORTEST_BUCKET, 1 << (length - 1).bit_length()), most)


class Engine:
    """Programs over the rows of a batch. Several devices share the rows, each with a copy of the weights.

    Attributes:
      model: widths and numerics.
      vocab_size: rows of the embedding.
      absent: ids below it that are never drawn.
      devices: how many share the rows; a batch has a multiple of so many.
      mesh: those devices; None if there is one.
      trees: params and topology, the first arguments of every program.
    """

    def __init__(
        self,
        model: ModelConfig,
        weights: Mapping[str, SparseWeight],
        params: Tree,
        topology: Tree,
        *,
        devices: Sequence[jax.Device],
        absent: Absent = (),
        implementation: str = "auto",
    ) -> None:
        """Put the weights onto the devices, in the compute dtype and with N:M masks applied.

        Args:
          model: of the run; what it says of implementations was for training and does not count.
          weights: the density table of the arrays.
          params: float32 parameters as ``functional.abstract`` has them; they are left as they are.
          topology: index arrays.
          devices: at least one.
          absent: ids that are never drawn, see ``vocabulary``.
          implementation: of ``block_matmul``, as ``kernels.auto.resolve`` takes it.

        Raises:
          ConfigError: the implementation cannot take one of the weights.
        """
        self.model, self.devices, self.absent = model, len(devices), absent
        self.vocab_size = params["embed"]["embedding"].shape[0]
        self._implementation, self._target = implementation, target_of(devices[0])
        self.mesh = Mesh(np.array(devices), (_ROWS,), axis_types=(AxisType.Auto,)) if len(devices) > 1 else None
        self._weights = dict(weights)
        # One token, because prompts are read once and tokens one by one.
        few = self.implementations(1)
        dense = [name for name, chosen in few.items() if chosen == "transient" and implementation == "auto"]
        self._weights, params, topology = frozen(weights, params, topology, model.compute_dtype, dense)
        place = devices[0] if self.mesh is None else NamedSharding(self.mesh, _WHOLE)
        self.trees = jax.device_put((params, topology), place)
        self._graphdefs: dict[tuple[Any, ...], nnx.GraphDef] = {}
        self._steps: dict[tuple[int, Sampling], Program] = {}

    def prefill(
        self, tokens_BT: ArrayLike, lengths_B: ArrayLike, seeds_B: ArrayLike, number: int, capacity: int, how: Sampling
    ) -> tuple[jax.Array, Cache]:
        """Read prompts (``cache.prefill``) and draw the token behind each (``sampling.draw_rows``), ``[B]`` int32."""
        graphdef = self.graphdef(*np.shape(tokens_BT))
        program = _prefill_program(graphdef, how, capacity, self.mesh, self.absent)
        return program(*self.trees, tokens_BT, lengths_B, seeds_B, number)

    def step(
        self, cache: Cache, token_B: ArrayLike, seeds_B: ArrayLike, number: int, how: Sampling
    ) -> tuple[jax.Array, Cache]:
        """Read one more token a row and draw the next; the cache is used up."""
        rows = np.shape(token_B)[0]
        # Looked up for every token: not by the graphdef, which takes long to compare.
        if (rows, how) not in self._steps:
            self._steps[rows, how] = _step_program(self.graphdef(rows, 1), how, self.mesh, self.absent)
        return self._steps[rows, how](*self.trees, cache, token_B, seeds_B, number)

    def graphdef(self, rows: int, length: int) -> nnx.GraphDef:
        """The model without arrays, with the products for so many rows of so many tokens at a time."""
        implementations = self.implementations(rows // self.devices * length)
        chosen = attention.resolve(
            "auto",
            target=self._target,
            head_dim=self.model.head_dim,
            length=length,
            dtype=self.model.compute_dtype,
        )
        key = (*implementations.values(), chosen.name)
        if key not in self._graphdefs:
            build = partial(
                Llama,
                self.model,
                self._weights,
                0,
                0,
                vocab_size=self.vocab_size,
                implementations=implementations,
                attention=chosen.name,
            )
            self._graphdefs[key] = functional.abstract(build).graphdef
        return self._graphdefs[key]

    def implementations(self, tokens: int) -> dict[str, str]:
        """``block_matmul`` of every kind stored as blocks, for so many tokens at a time."""
        return {
            name: auto.resolve(
                self._implementation,
                target=self._target,
                grid=weight.grid,
                density=weight.density,
                dtype=self.model.compute_dtype,
                tokens=tokens,
            )
            for name, weight in self._weights.items()
            if weight.packed
        }


def over_rows(function: Any, mesh: Mesh | None, arguments: tuple[Any, ...], results: Any) -> Any:
    """A function of params, topology and arrays of a batch, for a batch whose rows several devices share.

    Args:
      function: computes the rows of one device; no row may depend on another.
      mesh: of one axis; None is one device, whose function comes back as it is.
      arguments: where each argument behind params and topology has its rows, as ``PartitionSpec``.
      results: the same of what it returns.
    """
    if mesh is None:
        return function
    # Pallas calls say nothing about how their results vary over the mesh, so JAX cannot check it.
    return jax.shard_map(function, mesh=mesh, in_specs=(_WHOLE, _WHOLE, *arguments), out_specs=results, check_vma=False)


# Kept by what decides the program: a second engine of the same model compiles nothing.
@functools.lru_cache(maxsize=64)
def _prefill_program(
    graphdef: nnx.GraphDef, how: Sampling, capacity: int, mesh: Mesh | None, absent: Absent
) -> Program:
    def read(
        params: Tree, topology: Tree, tokens_BT: jax.Array, lengths_B: jax.Array, seeds_B: jax.Array, number: jax.Array
    ) -> tuple[jax.Array, Cache]:
        model = functional.merge(graphdef, params, topology)
        hidden_BD, cache = prefill(model, tokens_BT, lengths_B, capacity)
        return draw_rows(without_absent(model.logits(hidden_BD), absent), how, seeds_B, number), cache

    return jax.jit(over_rows(read, mesh, (BY_ROW, BY_ROW, BY_ROW, _WHOLE), (BY_ROW, _CACHE)))


@functools.lru_cache(maxsize=64)
def _step_program(graphdef: nnx.GraphDef, how: Sampling, mesh: Mesh | None, absent: Absent) -> Program:
    def step(
        params: Tree, topology: Tree, cache: Cache, token_B: jax.Array, seeds_B: jax.Array, number: jax.Array
    ) -> tuple[jax.Array, Cache]:
        model = functional.merge(graphdef, params, topology)
        hidden_B1D, cache = extend(model, cache, token_B[:, None])
        return draw_rows(without_absent(model.logits(hidden_B1D[:, 0]), absent), how, seeds_B, number), cache

    return jax.jit(over_rows(step, mesh, (_CACHE, BY_ROW, BY_ROW, _WHOLE), (BY_ROW, _CACHE)), donate_argnums=2)
