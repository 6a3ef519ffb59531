"""Everything a run carries from step to step, and nothing else.

Where replicas train apart (``outer.every`` above 1, see ``outer.py``), what each of them has of its own leads with an
axis of replicas, R.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Nested dicts of arrays, one level a module: ``params["layers"]["attention"]["q"]["values"]``.
Tree = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OuterState:
    """What replicas that train apart carry beside the weights they agree on.

    Attributes:
      params: each replica's own weights, ``[R, ...]`` float32.
      error: what each replica has not sent yet, ``[R, ...]`` float32.
    """

    params: Tree
    error: Tree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The saved state of a run.

    ``step`` counts batches consumed: batch number ``step`` is the next one. A step whose loss or gradient is
    not finite consumes its batch and changes nothing else, so ``step - skipped`` optimizer updates were made.

    Where replicas train apart, ``params`` are the weights of the last meeting, which all of them have, and
    ``opt_state``, ``skipped`` and ``skipped_in_row`` are each replica's own, with a leading axis R.

    Attributes:
      step: int32 scalar.
      params: trainable arrays, float32.
      topology: index arrays of the sparse weights, int32.
      opt_state: the Optax state.
      skipped: int32 scalar, steps without an update since the start.
      skipped_in_row: int32 scalar, steps without an update since the last one with.
      explored: for each kind that is rewired ``[L, ceil(cells / 8)]`` uint8, one bit a place: a block was there once.
      scores: for growth rules with a memory, ``[L, S, m]`` or ``[L, S, 2, m]`` float32 a kind; else empty.
      outer: of replicas that train apart; None where they meet every step.
    """

    step: jax.Array
    params: Tree
    topology: Tree
    opt_state: Any
    skipped: jax.Array
    skipped_in_row: jax.Array
    explored: dict[str, jax.Array]
    scores: dict[str, jax.Array]
    outer: OuterState | None = None

    @property
    def just_skipped(self) -> jax.Array:
        """Bool scalar: the last step was skipped, by one replica at least where they train apart."""
        return jnp.any(self.skipped_in_row > 0)


def train_apart(state: TrainState, replicas: int) -> TrainState:
    """A state without replicas of its own as the one that so many replicas begin with."""

    def copies(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (replicas, *leaf.shape)), tree)

    return dataclasses.replace(
        state,
        opt_state=copies(state.opt_state),
        skipped=copies(state.skipped),
        skipped_in_row=copies(state.skipped_in_row),
        outer=OuterState(copies(state.params), copies(jax.tree.map(jnp.zeros_like, state.params))),
    )


def for_each_replica(state: TrainState, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of an optimizer state without replicas, for that of ``state``."""
    return function if state.outer is None else jax.vmap(function)


def first_opt_state(state: TrainState) -> Any:
    """The optimizer state, or that of the first replica: one that stands for all, in what is logged of ages."""
    return state.opt_state if state.outer is None else jax.tree.map(lambda leaf: leaf[0], state.opt_state)
