"""Replicas that train apart and meet every ``outer.every`` steps: SparseLoCo (arXiv 2508.15706) over active blocks.

Between two meetings every replica takes steps of its own: its rows of the batch, its gradient norm, its optimizer
state; nothing travels along the mesh axis ``replica``. At a meeting each of them sends how far it went as one packed
message (``optim/pseudo_gradient.py``), all read all messages in the same order, and all go on from the same weights:

    e_r <- beta e_r + (theta - theta_r)     q_r = Q(Top(e_r))     e_r <- e_r - q_r
    theta <- theta - alpha mean_r q_r       theta_r <- theta

The mean is over all replicas; of the embedding's entries it is over those that sent them (``outer.mean``). Adam moves a
rare token's row as far in the one replica that saw it as it would in all of them together. The others have nothing to
say of it, and as zeros in a mean over all they would take most of it away.

``TrainState.params`` is theta: evaluation, rewiring and whoever reads a checkpoint see the weights of the last
meeting, which no replica has changed since. The last step of a run is a meeting.

A weight is cut into chunks where it lies: every device sends its own part. Norm scales are sent whole.

Axes: R replicas, W words of the message of a device.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from sparsejax.models.accounting import parameters
from sparsejax.models.parallel import REPLICA
from sparsejax.optim.pseudo_gradient import Message, compress, feed_back, mean_of, message, spread
from sparsejax.topology.slots import gather_slots
from sparsejax.training.recipe import Recipe
from sparsejax.training.sharding import specs
from sparsejax.training.state import OuterState, TrainState, Tree
from sparsejax.training.steps import MEANS_OF_TOKENS, Metrics, make_gradient, make_update

# A function of the slots of one weight, ``[L, n, ...]``.
Move = Callable[[jax.Array], jax.Array]

# What each replica has of its own: the axes to map an update over. The rest of a state is the same for all.
_OWN = TrainState(None, 0, None, 0, 0, 0, None, None)  # type: ignore[arg-type]  # axes instead of arrays


def meets(recipe: Recipe, step: int) -> bool:
    """Whether replicas that train apart meet after optimizer step number ``step``."""
    return recipe.replicas > 1 and (step % recipe.run.outer.every == 0 or step == recipe.steps)


def make_apart_step(recipe: Recipe) -> Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, Metrics]]:
    """The train step of replicas that train apart: as ``steps.make_train_step``, metrics ``[R]``, one a replica."""
    gradient = make_gradient(recipe, apart=True)
    update = jax.vmap(make_update(recipe), in_axes=(_OWN, 0, 0, None), out_axes=(_OWN, 0))

    def apart_step(state: TrainState, target_BT: jax.Array, rates: jax.Array) -> tuple[TrainState, Metrics]:
        assert state.outer is not None
        grads, sums = gradient(state.outer.params, state.topology, target_BT)
        own = dataclasses.replace(state, params=state.outer.params, outer=None)
        new, metrics = update(own, grads, sums, rates)
        outer = dataclasses.replace(state.outer, params=new.params)
        return dataclasses.replace(new, params=state.params, outer=outer), metrics

    return apart_step


def make_meet_step(recipe: Recipe) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """The program of a meeting: a state in; the state in which all replicas have the same weights, and metrics, out.

    Metrics: ``update_norm``, of what theta changed by, over all weights. One all-gather of packed messages is all
    that travels along the axis ``replica``.
    """
    outer, forms = recipe.run.outer, messages(recipe)
    by_senders = _by_senders(outer.mean, recipe.abstract.params)
    theta_specs = specs(recipe, recipe.abstract.params, "params/")
    own_specs = specs(recipe, recipe.abstract.outer, "outer/")

    def of_device(theta: Tree, own: OuterState) -> tuple[Tree, OuterState]:
        leaves, structure = jax.tree.flatten(theta)
        params, error = (jax.tree.leaves(tree) for tree in (own.params, own.error))
        entries = [
            feed_back(e[0], shared - mine[0], outer.beta) for shared, mine, e in zip(leaves, params, error, strict=True)
        ]
        words = [compress(form, each) for form, each in zip(forms, entries, strict=True)]
        received_RW = jax.lax.all_gather(jnp.concatenate(words), REPLICA)
        means = mean_of(forms, received_RW, by_senders)
        new = [shared - outer.lr * mean.reshape(shared.shape) for shared, mean in zip(leaves, means, strict=True)]
        left = [
            each - spread(form, sent).reshape(each.shape)
            for form, each, sent in zip(forms, entries, words, strict=True)
        ]
        synced, kept = jax.tree.unflatten(structure, new), jax.tree.unflatten(structure, left)
        return synced, jax.tree.map(lambda leaf: leaf[None], OuterState(synced, kept))

    exchange = jax.shard_map(
        of_device,
        mesh=recipe.mesh,
        in_specs=(theta_specs, own_specs),
        out_specs=(theta_specs, own_specs),
        check_vma=False,
    )

    def meet_step(state: TrainState) -> tuple[TrainState, Metrics]:
        assert state.outer is not None
        params, own = exchange(state.params, state.outer)
        change = jax.tree.map(jnp.subtract, params, state.params)
        return dataclasses.replace(state, params=params, outer=own), {"update_norm": optax.tree.norm(change)}

    return meet_step


def _by_senders(mean: str, params: Tree) -> list[bool]:
    """Of which leaves the mean is over the replicas that sent an entry, in the order of the tree."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return [mean == "senders" or (mean == "embedding_senders" and path[-1].key == "embedding") for path in paths]


def combined(window: list[Metrics]) -> list[Metrics]:
    """Metrics ``[R]`` of some steps as those of the run.

    Tokens are summed, skipped steps are those of the replica that has most. Means over tokens are weighted by the
    tokens of each replica, all else by 1 for a replica that has any: one without rows has nothing to say.
    """

    def of_run(name: str, own_R: jax.Array, tokens_R: jax.Array) -> jax.Array:
        if name == "tokens":
            return jnp.sum(own_R)
        if name in ("skipped", "skipped_in_row"):
            return jnp.max(own_R)
        weights_R = tokens_R if name in MEANS_OF_TOKENS else (tokens_R > 0).astype(jnp.float32)
        return jnp.sum(jnp.where(tokens_R > 0, own_R * weights_R, 0.0)) / jnp.maximum(jnp.sum(weights_R), 1.0)

    return [{name: of_run(name, own_R, metrics["tokens"]) for name, own_R in metrics.items()} for metrics in window]


def rewired(recipe: Recipe, outer: OuterState, params: Tree, old_slots: Mapping[str, jax.Array]) -> OuterState:
    """What replicas carry after a rewiring where they have met: its weights, and nothing unsent of regrown blocks.

    Args:
      recipe: the run.
      outer: before the rewiring.
      params: synced weights after it.
      old_slots: for the path of every rewired leaf ``[L, n]`` int32, see ``gather_slots``.
    """
    shards = recipe.run.topology.shards
    moves = {path: partial(gather_slots, old_slot=old_slot, shards=shards) for path, old_slot in old_slots.items()}
    own = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (recipe.replicas, *leaf.shape)), params)
    return OuterState(own, moved(outer, moves).error)


def moved(outer: OuterState, moves: Mapping[str, Move]) -> OuterState:
    """What replicas carry with the slots of the named leaves moved."""

    def follow(key_path: Any, leaf: jax.Array) -> jax.Array:
        path = jax.tree_util.keystr(key_path, simple=True, separator="/")
        return jax.vmap(moves[path])(leaf) if path in moves else leaf

    params, error = (jax.tree_util.tree_map_with_path(follow, tree) for tree in (outer.params, outer.error))
    return OuterState(params, error)


def messages(recipe: Recipe) -> list[Message]:
    """How a device sends its part of every leaf of the params, in the order of the tree."""
    outer, mesh = recipe.run.outer, recipe.mesh
    assert mesh is not None, "replicas that train apart have devices of their own"

    def of_leaf(path: Any, leaf: jax.ShapeDtypeStruct, spec: PartitionSpec) -> Message:
        size = math.prod(NamedSharding(mesh, spec).shard_shape(leaf.shape))
        whole = path[-1].key == "scale"
        return message(size, size, 1.0, 32) if whole else message(size, outer.chunk, outer.top, outer.bits)

    params = recipe.abstract.params
    return jax.tree.leaves(jax.tree_util.tree_map_with_path(of_leaf, params, specs(recipe, params, "params/")))


@dataclasses.dataclass(frozen=True)
class SlowTraffic:
    """Bytes that one replica sends along the slow link, by the ring that gathers or sums over R replicas.

    Attributes:
      message: one packed message, of all devices of the replica.
      meeting: its own message and those it hands on, ``(R - 1) message``.
      step: the mean over steps, ``meeting / every``.
      all_reduce: a sum of the float32 gradients of all active parameters, ``2 (R - 1) / R`` times their bytes: what
        each step sends where replicas do not train apart.
    """

    message: int
    meeting: int
    step: float
    all_reduce: float

    @property
    def share(self) -> float:
        """Bytes of a step over those of summing gradients."""
        return self.step / self.all_reduce

    def line(self, replicas: int, every: int) -> str:
        """One line for the start of a run."""
        return (
            f"{replicas} replicas meet every {every} steps: {self.meeting / 2**20:.3f} MiB a meeting and replica, "
            f"{self.step / 2**10:.2f} KiB a step, {self.share:.3%} of summing float32 gradients every step"
        )


def slow_traffic(recipe: Recipe) -> SlowTraffic:
    """Bytes along the replica axis of a run whose replicas train apart, by arithmetic."""
    replicas, parallel = recipe.replicas, recipe.parallel
    sent = 4 * sum(form.words for form in messages(recipe)) * parallel.fsdp * parallel.tensor
    active = parameters(recipe.shape, [weight.counted for weight in recipe.weights.values()]).active
    meeting = (replicas - 1) * sent
    return SlowTraffic(sent, meeting, meeting / recipe.run.outer.every, 2 * (replicas - 1) / replicas * 4 * active)
