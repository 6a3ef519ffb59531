"""Measured bytes of the training state, by kind, read off the arrays themselves (not off a formula)."""

from __future__ import annotations

import os
from typing import Any

import jax

from sparsejax.config import ConfigError
from sparsejax.models.accounting import StateBytes
from sparsejax.optim.galore import projections
from sparsejax.optim.sparse_adam import sparse_adam_state
from sparsejax.optim.weight_average import averaged_weights
from sparsejax.training.distill import abstract_teacher
from sparsejax.training.recipe import Recipe
from sparsejax.training.state import TrainState
from sparsejax.training.steps import make_gradient


def check_fits(recipe: Recipe) -> None:
    """Refuse a run whose state alone, cut over all devices, is larger than their memory; nothing is allocated.

    A bound from below: gradients and activations come on top, which ``sparsejax check`` counts.

    Raises:
      ConfigError: it cannot fit.
    """
    needed = nbytes(recipe.abstract) / jax.process_count()
    there = _memory_of_this_process()
    if there is not None and needed > there:
        run = recipe.run
        raise ConfigError(
            f"model.hidden={run.model.hidden}, model.mlp={run.model.mlp}, model.layers={run.model.layers}: weights and "
            f"moments take {needed / 2**30:,.0f} GiB, and there are {there / 2**30:,.0f}; train a smaller model, or on "
            "more devices"
        )


def _memory_of_this_process() -> int | None:
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [
        stats["bytes_limit"] for stats in (each.memory_stats() or {} for each in devices) if "bytes_limit" in stats
    ]
    return sum(limits) if len(limits) == len(devices) else None


def measure(recipe: Recipe, state: TrainState) -> tuple[StateBytes, StateBytes]:
    """Bytes of the seven maskable kinds of weight, and of the whole state.

    ``state`` may hold arrays or ``jax.ShapeDtypeStruct``. Gradients are the outputs of the run's own gradient
    function, taken abstractly: they exist inside a step only, at exactly these shapes. What is kept per place for
    rewiring (explored bits, scores of a growth rule with a memory) counts as indices. Where replicas train apart,
    their own weights and what they have not sent yet count as values. An average of the weights counts as moments.
    """
    adam = sparse_adam_state(state.opt_state)
    average = averaged_weights(state.opt_state) or {}
    # Of the maskable kinds only, and kept for the sake of the moments.
    projected = projections(state.opt_state)
    target = jax.ShapeDtypeStruct((recipe.run.train.batch_size, recipe.run.data.sequence_length), "int32")
    trained, copies = state.params, [state.params]
    if state.outer is not None:
        trained, copies = state.outer.params, [state.params, state.outer.params, state.outer.error]
    beside = (abstract_teacher(recipe),) if recipe.run.init.distills else ()
    gradient = make_gradient(recipe, apart=state.outer is not None)
    gradients, _ = jax.eval_shape(gradient, trained, state.topology, target, *beside)
    kinds = [name.split(".") for name in recipe.weights]

    def of_weights(tree: Any) -> Any:
        layers = tree["layers"] if "layers" in tree else {}
        return [layers[room][kind] for room, kind in kinds if room in layers and kind in layers[room]]

    maskable = StateBytes(
        values=nbytes([of_weights(each) for each in copies]),
        indices=nbytes([of_weights(state.topology), state.explored, state.scores]),
        ages=nbytes(adam.ages),
        moments=nbytes([of_weights(adam.mu), of_weights(adam.nu), projected, of_weights(average)]),
        gradients=nbytes(of_weights(gradients)),
    )
    whole = StateBytes(
        values=nbytes(copies),
        indices=nbytes([state.topology, state.explored, state.scores]),
        ages=nbytes(adam.ages),
        moments=nbytes([adam.mu, adam.nu, projected, average]),
        gradients=nbytes(gradients),
    )
    return maskable, whole


def nbytes(tree: Any) -> int:
    """Bytes of all arrays of a tree, concrete or abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
