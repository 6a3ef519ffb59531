"""Log-likelihoods of given tokens, in batches of few shapes.

Axes: B rows, T inputs, C scored targets, D hidden, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from sparsejax.inference.engine import BY_ROW, Engine, Program, bucket, over_rows
from sparsejax.inference.vocabulary import Absent, without_absent
from sparsejax.models import functional
from sparsejax.models.functional import Tree

# Stands for no target.
_IGNORED = -1
# Logits of one device that exist at a time: 256 MiB of float32.
_MOST_LOGITS = 1 << 26


@dataclasses.dataclass(frozen=True)
class Scored:
    """Inputs of the model, and what the last of them should predict.

    Attributes:
      inputs: token ids, at least as many as targets.
      targets: token ids; target i is the prediction of input ``len(inputs) - len(targets) + i``.
    """

    inputs: Sequence[int]
    targets: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.targets) > len(self.inputs):
            raise ValueError(f"{len(self.targets)} targets of {len(self.inputs)} inputs: every target needs an input")


@dataclasses.dataclass(frozen=True)
class Score:
    """Sum of ``log softmax(logits)[target]`` in nats, and whether every target is the likeliest token.

    The softmax is over all rows of the embedding, as in other programs; the likeliest token is one of the tokenizer's.
    """

    log_likelihood: float
    greedy: bool


def score(engine: Engine, rows: Sequence[Scored], *, length: int, batch_size: int) -> list[Score]:
    """Score every row, in the order given; rows without targets have likelihood 1.

    Rows of like length share a batch. They stand at the left, so what fills them up is seen by no token of theirs, and
    the head is applied at scored places only. A program is compiled for every bucket of lengths that occurs.

    Args:
      engine: the model.
      rows: inputs and targets.
      length: most inputs of a row.
      batch_size: rows of a batch; rounded up to a multiple of the engine's devices.

    Raises:
      ValueError: a row is longer than ``length``, or the batch size is below 1.
    """
    longest = max((len(row.inputs) for row in rows), default=0)
    if longest > length or batch_size < 1:
        raise ValueError(f"{longest} inputs, batch_size={batch_size}: at most {length} inputs and at least 1 row")
    size = batch_size + -batch_size % engine.devices
    scores = [Score(0.0, True)] * len(rows)
    for numbers, inputs_BT, start_B, target_BC in _batches(rows, length, size):
        program = _score_program(engine.graphdef(*inputs_BT.shape), engine.mesh, engine.absent)
        found = program(*engine.trees, inputs_BT, start_B, target_BC)
        likelihood_BC, greedy_BC = (np.asarray(each) for each in found)
        # Summed in float64 on the host, so the sum does not depend on how much was filled up.
        for row, number in enumerate(numbers):
            scores[number] = Score(float(likelihood_BC[row].astype(np.float64).sum()), bool(greedy_BC[row].all()))
    return scores


def _batches(
    rows: Sequence[Scored], length: int, size: int
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray, np.ndarray]]:
    """Numbers of rows; their inputs ``[B, T]``, first scored places ``[B]`` and targets ``[B, C]``, filled up."""
    wanted = [number for number, row in enumerate(rows) if row.targets]

    def bucket_of(number: int) -> int:
        return bucket(len(rows[number].inputs), length)

    # The longest first: what does not fit into memory fails at once.
    wanted.sort(key=lambda number: -len(rows[number].inputs))
    for inputs, group in groupby(wanted, bucket_of):
        numbers = list(group)
        targets = bucket(max(len(rows[number].targets) for number in numbers), inputs)
        for first in range(0, len(numbers), size):
            batch = numbers[first : first + size]
            inputs_BT = np.zeros((size, inputs), np.int32)
            start_B = np.zeros(size, np.int32)
            target_BC = np.full((size, targets), _IGNORED, np.int32)
            for row, number in enumerate(batch):
                given, scored = rows[number].inputs, rows[number].targets
                inputs_BT[row, : len(given)] = given
                start_B[row] = len(given) - len(scored)
                target_BC[row, : len(scored)] = scored
            yield batch, inputs_BT, start_B, target_BC


@functools.lru_cache(maxsize=64)
def _score_program(graphdef: nnx.GraphDef, mesh: Mesh | None, absent: Absent) -> Program:
    def scores(
        params: Tree, topology: Tree, inputs_BT: jax.Array, start_B: jax.Array, target_BC: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        model = functional.merge(graphdef, params, topology)
        hidden_BTD = model.hidden_states(inputs_BT)
        place_BC = jnp.minimum(start_B[:, None] + jnp.arange(target_BC.shape[1]), inputs_BT.shape[1] - 1)
        scored_BCD = jnp.take_along_axis(hidden_BTD, place_BC[..., None], axis=1)
        return _by_chunks(model, scored_BCD, target_BC, absent)

    return jax.jit(over_rows(scores, mesh, (BY_ROW, BY_ROW, BY_ROW), (BY_ROW, BY_ROW)))


def _by_chunks(model: Any, hidden_BCD: jax.Array, target_BC: jax.Array, absent: Absent) -> tuple[jax.Array, jax.Array]:
    """Log-likelihood (0 without a target) and greediness of every target, few logits at a time."""
    (rows, count), kernel_DV = target_BC.shape, model.head_kernel
    chunk = max(1, min(count, _MOST_LOGITS // (rows * kernel_DV.shape[1])))
    padding = -count % chunk
    hidden_BCD = jnp.pad(hidden_BCD, ((0, 0), (0, padding), (0, 0)))
    target_BC = jnp.pad(target_BC, ((0, 0), (0, padding)), constant_values=_IGNORED)

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(rows, -1, chunk, *x.shape[2:]).swapaxes(0, 1)

    def of_chunk(both: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden, target = both
        logits = model.logits_by(kernel_DV, hidden)
        picked = jnp.take_along_axis(logits, jnp.maximum(target, 0)[..., None], axis=-1)[..., 0]
        likelihood = picked - jax.nn.logsumexp(logits, axis=-1)
        ignored = target == _IGNORED
        likeliest = jnp.argmax(without_absent(logits, absent), axis=-1)
        return jnp.where(ignored, 0.0, likelihood), ignored | (likeliest == target)

    found = jax.lax.map(of_chunk, (split(hidden_BCD), split(target_BC)))
    likelihood, greedy = (each.swapaxes(0, 1).reshape(rows, -1)[:, :count] for each in found)
    return likelihood, greedy
