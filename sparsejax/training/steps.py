"""The programs of a run: train, evaluate, rewire. Each is compiled once; rewiring never recompiles another.

Axes: B rows of a batch, T tokens of a row, A microbatches, L layers, n slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.models import functional
from sparsejax.optim.sparse_adam import remap
from sparsejax.topology import stats
from sparsejax.topology.blocks import Index
from sparsejax.topology.keys import weight_key
from sparsejax.topology.rewire import Rewiring, move_values, rewire
from sparsejax.topology.scores import magnitude, random
from sparsejax.training.loss import LossSums, loss_sums, objective, shift_right
from sparsejax.training.recipe import Recipe, index_of, values_of, values_path, with_index, with_values
from sparsejax.training.state import TrainState, Tree

Metrics = dict[str, jax.Array]


def forward_sums(recipe: Recipe, params: Tree, topology: Tree, target_BT: jax.Array) -> LossSums:
    """Loss sums of the model on one batch of targets."""
    model = functional.merge(recipe.graphdef, params, topology)
    return loss_sums(model(shift_right(target_BT, recipe.start_id)), target_BT)


def make_gradient(recipe: Recipe) -> Callable[[Tree, Tree, jax.Array], tuple[Tree, LossSums]]:
    """Gradient of the summed objective: params, topology and targets ``[B, T]`` in, gradients and loss sums out.

    Gradients exist for active blocks only. With ``train.microbatches = A`` they are summed over a scan of A
    slices of the batch, in float32.
    """
    train = recipe.run.train

    def summed(params: Tree, topology: Tree, target_BT: jax.Array) -> tuple[jax.Array, LossSums]:
        sums = forward_sums(recipe, params, topology, target_BT)
        return objective(sums, train.z_loss), sums

    gradient = jax.grad(summed, has_aux=True)
    if train.microbatches == 1:
        return gradient

    def accumulated(params: Tree, topology: Tree, target_BT: jax.Array) -> tuple[Tree, LossSums]:
        micro = target_BT.reshape(train.microbatches, -1, target_BT.shape[1])

        def add(total: Any, target: jax.Array) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient(params, topology, target)), None

        zero = LossSums(*(jnp.zeros((), jnp.float32) for _ in range(3)))
        return jax.lax.scan(add, (jax.tree.map(jnp.zeros_like, params), zero), micro)[0]

    return accumulated


def make_train_step(recipe: Recipe) -> Callable[[TrainState, jax.Array], tuple[TrainState, Metrics]]:
    """The train step: state and targets ``[B, T]`` int32 in, new state and float32 metrics out.

    Summed gradients are divided by the number of counted tokens once, so the result does not depend on the
    number of microbatches. A loss or gradient norm that is not finite leaves params, topology and optimizer
    untouched.
    """
    gradient = make_gradient(recipe)

    def train_step(state: TrainState, target_BT: jax.Array) -> tuple[TrainState, Metrics]:
        grads, sums = gradient(state.params, state.topology, target_BT)
        tokens = jnp.maximum(sums.tokens, 1.0)
        grads = jax.tree.map(lambda g: g / tokens, grads)
        norm = optax.tree.norm(grads)
        loss = sums.nll / tokens
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = recipe.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        def keep(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        skip = 1 - finite.astype(jnp.int32)
        new_state = TrainState(
            step=state.step + 1,
            params=keep(params, state.params),
            topology=state.topology,
            opt_state=keep(opt_state, state.opt_state),
            skipped=state.skipped + skip,
            skipped_in_row=(state.skipped_in_row + skip) * skip,
        )
        metrics = {
            "loss": loss,
            "grad_norm": norm,
            "log_z2": sums.log_z2 / tokens,
            "tokens": sums.tokens,
            "skipped": new_state.skipped,
            "skipped_in_row": new_state.skipped_in_row,
        }
        return new_state, metrics

    return train_step


def make_eval_step(recipe: Recipe) -> Callable[[Tree, Tree, jax.Array], LossSums]:
    """The evaluation step: params, topology and targets ``[B, T]`` in, loss sums out."""

    def eval_step(params: Tree, topology: Tree, target_BT: jax.Array) -> LossSums:
        return forward_sums(recipe, params, topology, target_BT)

    return eval_step


def make_rewire_step(recipe: Recipe) -> Callable[[TrainState, Mapping[str, jax.Array]], tuple[TrainState, Metrics]]:
    """The rewiring step: state and blocks to replace in a share of each kind in, new state and statistics out.

    The counts are traced int32 scalars, so one program serves every rate. Scores are magnitudes, growth is
    random with keys folded from (topology seed, step, weight, layer, share).
    """
    seed, regrow_dropped = recipe.run.seeds.topology, recipe.run.topology.regrow_dropped
    layers = jnp.arange(recipe.run.model.layers)

    def rewire_kind(name: str, index: Index, values_Lnab: jax.Array, step: jax.Array, count: jax.Array) -> Rewiring:
        grid = recipe.weights[name].grid

        def one_layer(index: Index, values: jax.Array, layer: jax.Array) -> Rewiring:
            growth = random(weight_key(seed, step, name, layer), grid)
            return rewire(index, grid, magnitude(values), growth, count, regrow_dropped)

        return jax.vmap(one_layer)(index, values_Lnab, layers)

    def rewire_step(state: TrainState, counts: Mapping[str, jax.Array]) -> tuple[TrainState, Metrics]:
        params, topology = state.params, state.topology
        old_slots: dict[str, jax.Array] = {}
        metrics: Metrics = {}
        for name in recipe.sparse:
            values = values_of(params, name)
            rewiring = rewire_kind(name, index_of(topology, name), values, state.step, counts[name])
            params = with_values(params, name, move_values(values, rewiring))
            topology = with_index(topology, name, rewiring.index)
            old_slots[values_path(name)] = rewiring.old_slot
            metrics |= _statistics(recipe, name, rewiring)
        opt_state = remap(state.opt_state, old_slots)
        return TrainState(state.step, params, topology, opt_state, state.skipped, state.skipped_in_row), metrics

    return rewire_step


def _statistics(recipe: Recipe, name: str, rewiring: Rewiring) -> Metrics:
    grid = recipe.weights[name].grid

    def one_layer(index: Index, old_slot: jax.Array) -> Metrics:
        dead_rows, dead_columns = stats.dead_lines(index, grid)
        return {
            "density": stats.density(index, grid),
            "churn": stats.churn(index, grid, old_slot),
            "dead_rows": dead_rows,
            "dead_columns": dead_columns,
        }

    by_layer = jax.vmap(one_layer)(rewiring.index, rewiring.old_slot)
    return {f"topology/{key}/{name}": jnp.mean(value) for key, value in by_layer.items()}
