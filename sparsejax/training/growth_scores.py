"""The score program: how much the gradient of a whole batch wants every block, active or not.

It runs only before a rewiring whose rule looks at gradients. Norms of parts do not add up to the norm of a sum, so a
score needs the gradient of the whole batch. There are two ways to it:

- A batch in one part, on one device: the run's own products, whose backward pass also scores every place
  (``kernels.scored_matmul``). No dense weight or gradient exists.
- Several microbatches, or an implementation that makes its weight dense anyway: every sparse weight of a layer is made
  dense once (``models.sparse_linear.scored_kernel``) and takes all parts, so what is added to memory is the dense
  gradient of the layer being looked at, never a dense model.

Axes: L layers, B rows, T tokens, A microbatches, R x C block rows and columns, S shares, m cells of a share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from sparsejax.config import TopologyConfig
from sparsejax.models.functional import merge
from sparsejax.models.llama import Llama
from sparsejax.models.parallel import TENSOR
from sparsejax.models.shapes import SHARD_AXES
from sparsejax.models.sparse_linear import GrowthProbe, TopologyIndex
from sparsejax.models.weight_table import local_weight
from sparsejax.topology import drop, growth
from sparsejax.topology.scores import by_share
from sparsejax.training.loss import objective, shift_right
from sparsejax.training.on_mesh import on_mesh
from sparsejax.training.recipe import Recipe, values_of
from sparsejax.training.rewire_plan import next_due
from sparsejax.training.sharding import specs
from sparsejax.training.state import TrainState, Tree
from sparsejax.training.steps import own_loss_sums


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scores:
    """Gradient scores of every sparse kind; a dict is empty where the run's rules do not look at it.

    Attributes:
      growth: ``[L, S, m]`` float32, ``sum |dL/dW|`` of every place, or the growth rule's memory of it.
      taylor: ``[L, n]`` float32, ``sum (w dL/dw)^2`` of every slot.
    """

    growth: dict[str, jax.Array]
    taylor: dict[str, jax.Array]


NO_SCORES = Scores({}, {})


def wants_scores(recipe: Recipe, step: int) -> bool:
    """Whether the gradients of the batch of ``step`` count for a rewiring."""
    due = next_due(recipe, step) if steps_scored(recipe.run.topology) else None
    return due is not None and due - step < steps_scored(recipe.run.topology)


def steps_scored(topology: TopologyConfig) -> int:
    """Steps before every rewiring whose batches are scored, that of the rewiring included; 0 if no rule asks."""
    if topology.grow in growth.REMEMBERING:
        return topology.score_steps
    return int(topology.grow in growth.SCORED or topology.drop == "taylor")


def one_batch_decides(topology: TopologyConfig) -> bool:
    """Whether the gradient of the batch just trained on, and nothing before it, decides what goes or comes."""
    return topology.drop == "taylor" or (topology.grow in growth.SCORED and topology.grow not in growth.REMEMBERING)


def batch_counts(state: TrainState, scored: Any) -> jax.Array:
    """Bool scalar: the last step was not skipped, and all scores of its batch, a tree of arrays, are finite."""
    finite = [jnp.all(jnp.isfinite(score)) for score in jax.tree.leaves(scored)]
    return jnp.all(jnp.stack([~state.just_skipped, *finite]))


def make_score_step(recipe: Recipe) -> Callable[[TrainState, jax.Array], tuple[TrainState, Scores]]:
    """The score program: state and targets ``[B, T]`` in; state with the rule's memory updated, and scores, out.

    With ``train.microbatches`` the parts of the batch pass through every layer one after another, and the gradient of
    a layer is summed over them before its absolute value is taken: norms do not add up over parts.

    A batch whose step was skipped, or whose scores are not finite, leaves the memory as it is.
    """
    run = recipe.run
    graphdef, probes = _probed(recipe)

    def summed(params: Tree, probes: Tree, topology: Tree, target_BT: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, nnx.State(params), nnx.State(topology), nnx.State(probes))
        return _objective(recipe, model, target_BT)

    def of_device(params: Tree, topology: Tree, target_BT: jax.Array) -> tuple[Tree, Tree]:
        by_params, by_probe = jax.grad(summed, argnums=(0, 1))(params, probes, topology, target_BT)
        return by_params, by_probe

    probe_specs = jax.tree_util.tree_map_with_path(_probe_spec, probes)
    gradients = on_mesh(recipe, of_device, (specs(recipe, recipe.abstract.params, "params/"), probe_specs))

    def score_step(state: TrainState, target_BT: jax.Array) -> tuple[TrainState, Scores]:
        tokens = jnp.maximum(jnp.sum(target_BT >= 0), 1).astype(jnp.float32)
        by_params, by_probe = gradients(state.params, state.topology, target_BT)
        taylor = {}
        if run.topology.drop == "taylor":
            for name in recipe.sparse:
                pair = values_of(state.params, name), values_of(by_params, name) / tokens
                taylor[name] = jax.vmap(drop.taylor)(*pair)
        scored = {}
        if run.topology.grow in growth.SCORED:
            for name, weight in recipe.sparse.items():
                room, kind = name.split(".")
                score_LRC = by_probe["layers"][room][kind]["probe"] / tokens
                scored[name] = jax.vmap(lambda score, grid=weight.grid: by_share(score, grid))(score_LRC)
        memory = state.scores
        if memory:
            counts, grow = batch_counts(state, scored), run.topology.grow
            memory = {
                name: jnp.where(counts, growth.remember(grow, old, scored[name], run.topology.score_decay), old)
                for name, old in memory.items()
            }
        state = dataclasses.replace(state, scores=memory)
        return state, Scores(scored | memory, taylor)

    return score_step


def _probed(recipe: Recipe) -> tuple[nnx.GraphDef, Tree]:
    """The model of one device with a probe at every sparse weight: its structure, and the probes' zeros."""

    def build() -> Llama:
        model = merge(recipe.graphdef, recipe.abstract.params, recipe.abstract.topology)
        for name, weight in recipe.sparse.items():
            room, kind = name.split(".")
            grid = local_weight(weight, recipe.parallel.tensor).grid
            shape = (recipe.run.model.layers, grid.rows, grid.columns)
            getattr(getattr(model.layers, room), kind).probe = GrowthProbe(jnp.zeros(shape, jnp.float32))
        return model

    graphdef, *states = nnx.split(build(), nnx.Param, TopologyIndex, GrowthProbe)
    return graphdef, nnx.to_pure_dict(states[-1])


def _probe_spec(path: Any, _: jax.Array) -> PartitionSpec:
    """Where the scores ``[L, R, C]`` of a kind live: with its shares."""
    room, kind = path[-3].key, path[-2].key
    return PartitionSpec(None, TENSOR) if SHARD_AXES[f"{room}.{kind}"] == "rows" else PartitionSpec(None, None, TENSOR)


def _objective(recipe: Recipe, model: Llama, target_BT: jax.Array) -> jax.Array:
    """The summed loss of a device, the head's logits made for one microbatch at a time."""
    train = recipe.run.train
    hidden_BTD = model.hidden_states(shift_right(target_BT, recipe.start_id), scored_parts=train.microbatches)

    def part(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return objective(own_loss_sums(recipe, model, *pair), train.z_loss)

    if train.microbatches == 1:
        return part((hidden_BTD, target_BT))
    parts = jax.tree.map(lambda x: x.reshape(train.microbatches, -1, *x.shape[1:]), (hidden_BTD, target_BT))
    return jnp.sum(jax.lax.map(jax.checkpoint(part), parts))
