"""The programs of every step: train and evaluate. Each is compiled once; rewiring (``rewiring.py``) recompiles none.

Axes: B rows of a batch, T tokens of a row, A microbatches, L layers, n slots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from sparsejax.models import functional
from sparsejax.models.flow import with_flow
from sparsejax.models.llama import Llama
from sparsejax.models.parallel import REPLICA
from sparsejax.topology.density_path import decays
from sparsejax.training.distill import DistillSums, make_distilled_objective, teacher_specs
from sparsejax.training.loss import LossSums, head_loss_sums, objective, shift_right
from sparsejax.training.on_mesh import on_mesh
from sparsejax.training.recipe import Recipe, index_of, values_path
from sparsejax.training.rewire_statistics import active_in, regrown_update
from sparsejax.training.sharding import specs
from sparsejax.training.state import TrainState, Tree

Metrics = dict[str, jax.Array]

# Of a step's metrics, the means over the tokens of its batch.
MEANS_OF_TOKENS = frozenset({"loss", "log_z2"})

# Sums over all tokens are the same on every device; those of a replica that trains apart are its own.
_SUMS = LossSums(*(PartitionSpec(),) * 3)  # type: ignore[arg-type]  # places instead of arrays
_OWN_SUMS = LossSums(*(PartitionSpec(REPLICA),) * 3)  # type: ignore[arg-type]
_DISTILL_SUMS = DistillSums(*(PartitionSpec(),) * 5)  # type: ignore[arg-type]


def forward_sums(recipe: Recipe, params: Tree, topology: Tree, target_BT: jax.Array) -> LossSums:
    """Loss sums of the model on one batch of targets; on a mesh, those of the tokens that the device answers for."""
    model = functional.merge(recipe.graphdef, params, topology)
    hidden_BTD = model.hidden_states(shift_right(target_BT, recipe.start_id))
    return own_loss_sums(recipe, model, hidden_BTD, target_BT)


def own_loss_sums(recipe: Recipe, model: Llama, hidden_BTD: jax.Array, target_BT: jax.Array) -> LossSums:
    """Loss sums from the output of the last layer; devices of the tensor axis take equal parts of the tokens."""
    parallel = recipe.parallel
    if not parallel.sequence:
        hidden_BTD = parallel.own_tokens(hidden_BTD)
    logits = partial(model.logits_by, model.head_kernel)
    return head_loss_sums(logits, hidden_BTD, parallel.own_tokens(target_BT), chunk_tokens=recipe.run.train.loss_chunk)


def make_gradient(recipe: Recipe, *, apart: bool = False) -> Callable[..., tuple[Tree, LossSums]]:
    """Gradient of the summed objective: params, topology and targets ``[B, T]`` in, gradients and loss sums out.

    A run with a teacher takes its params behind the targets, and has the objective and the sums of ``distill``.

    Gradients exist for active blocks only. With ``train.microbatches = A`` they are summed over a scan of A
    slices of the rows of every device, in float32. With ``apart`` every replica has params, gradients and sums of its
    own, over its own rows: their arrays lead with an axis of replicas.
    """
    train = recipe.run.train

    def summed(params: Tree, topology: Tree, target_BT: jax.Array) -> tuple[jax.Array, LossSums]:
        sums = forward_sums(recipe, params, topology, target_BT)
        return objective(sums, train.z_loss), sums

    distills = recipe.run.init.distills
    gradient = jax.grad(make_distilled_objective(recipe) if distills else summed, has_aux=True)
    sums = _DISTILL_SUMS if distills else _OWN_SUMS if apart else _SUMS
    beside = (teacher_specs(recipe),) if distills and recipe.mesh is not None else ()
    out_specs = specs(recipe, recipe.abstract.params, "outer/params/" if apart else "params/"), sums
    if train.microbatches == 1:
        return on_mesh(recipe, gradient, out_specs, apart=apart, beside=beside)

    def accumulated(params: Tree, topology: Tree, target_BT: jax.Array, *teacher: Tree) -> tuple[Tree, LossSums]:
        micro = target_BT.reshape(train.microbatches, -1, target_BT.shape[1])

        def add(total: Any, target: jax.Array) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient(params, topology, target, *teacher)), None

        zero = type(sums)(*(jnp.zeros((), jnp.float32) for _ in dataclasses.fields(sums)))
        return jax.lax.scan(add, (jax.tree.map(jnp.zeros_like, params), zero), micro)[0]

    return on_mesh(recipe, accumulated, out_specs, apart=apart, beside=beside)


def make_train_step(recipe: Recipe) -> Callable[..., tuple[TrainState, Metrics]]:
    """The train step: state, targets ``[B, T]`` int32 and ``recipe.rates`` in, new state and float32 metrics out.

    A run with a teacher takes its params behind the rates, see ``distill.abstract_teacher``.
    """
    gradient, update = make_gradient(recipe), make_update(recipe)

    def train_step(
        state: TrainState, target_BT: jax.Array, rates: jax.Array, *teacher: Tree
    ) -> tuple[TrainState, Metrics]:
        grads, sums = gradient(state.params, state.topology, target_BT, *teacher)
        return update(state, grads, sums, rates)

    return train_step


def make_update(recipe: Recipe) -> Callable[[TrainState, Tree, LossSums, jax.Array], tuple[TrainState, Metrics]]:
    """The second half of a train step: state, summed gradients, their loss sums and ``recipe.rates`` in.

    Summed gradients are divided by the number of counted tokens once, so the result does not depend on the
    number of microbatches. A loss or gradient norm that is not finite leaves params, topology and optimizer
    untouched.
    """

    def update(state: TrainState, grads: Tree, sums: LossSums, rates: jax.Array) -> tuple[TrainState, Metrics]:
        tokens = jnp.maximum(sums.tokens, 1.0)
        loss = sums.nll / tokens
        with jax.named_scope("optimizer"):
            grads = jax.tree.map(lambda g: g / tokens, grads)
            norm = optax.tree.norm(grads)
            finite = jnp.isfinite(loss) & jnp.isfinite(norm)
            # A skipped step makes no update, so it takes no rate from the table either.
            rate = rates[state.step - state.skipped]
            directions, opt_state = recipe.optimizer.update(
                grads, state.opt_state, state.params, step_size=-rate, densities_now=moving_densities(recipe, state)
            )
            updates = jax.tree.map(lambda direction: -rate * direction, directions)
            new = optax.apply_updates(state.params, updates), opt_state
            old = state.params, state.opt_state
            params, kept_opt_state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
        skip = 1 - finite.astype(jnp.int32)
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            topology=with_flow(state.topology, recipe.run, state.step + 1, recipe.steps),
            opt_state=kept_opt_state,
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
        if isinstance(sums, DistillSums):
            metrics |= {"divergence": sums.divergence / tokens, "feature_error": sums.feature_error / tokens}
        if recipe.rewires:
            metrics["regrown_update"] = regrown_update(recipe, updates, state.topology, opt_state)
        return new_state, metrics

    return update


def moving_densities(recipe: Recipe, state: TrainState) -> dict[str, jax.Array]:
    """Density of every sparse kind in a state, by the path of its values, where rates follow a density that falls.

    It is counted in the topology: a number of the recipe would be that of the step at which the program was made.
    """
    run = recipe.run
    if not decays(run.topology) or run.optim.density_exponent == 0.0:
        return {}
    places = {name: run.model.layers * weight.grid.cells for name, weight in recipe.sparse.items()}
    return {
        values_path(name): jnp.sum(active_in(index_of(state.topology, name), weight.grid)) / places[name]
        for name, weight in recipe.sparse.items()
    }


def make_eval_step(recipe: Recipe) -> Callable[[Tree, Tree, jax.Array], LossSums]:
    """The evaluation step: params, topology and targets ``[B, T]`` in, loss sums out."""

    def eval_step(params: Tree, topology: Tree, target_BT: jax.Array) -> LossSums:
        return forward_sums(recipe, params, topology, target_BT)

    return on_mesh(recipe, eval_step, _SUMS)
