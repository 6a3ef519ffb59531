"""The real programs of a run, lowered and compiled for devices that this machine need not have."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.config import ConfigError, RunConfig
from sparsejax.hardware.systems import System
from sparsejax.hardware.topologies import described_devices
from sparsejax.planning.facts import Facts
from sparsejax.planning.overflow import Overflow, read_overflow
from sparsejax.training import programs
from sparsejax.training.distill import abstract_teacher
from sparsejax.training.growth_scores import NO_SCORES, wants_scores
from sparsejax.training.mesh import make_mesh, settle_mesh
from sparsejax.training.recipe import Recipe, build_recipe
from sparsejax.training.rewire_plan import plan_at
from sparsejax.training.sharding import state_shardings

TRAIN, MEET, SCORE, REWIRE = "train step", "meeting of replicas", "score step", "rewire step"
ALL = (TRAIN, MEET, SCORE, REWIRE)

_COUNT_FLAG = "xla_force_host_platform_device_count"


def devices_of(system: System) -> tuple[jax.Device, ...]:
    """Devices to compile for: described TPUs, or simulated ones; for GPUs simulated ones stand in, for shapes only.

    Raises:
      ConfigError: the TPU compiler knows no such shape, is missing or in use; or JAX has fewer simulated devices.
    """
    if system.torus:
        try:
            return described_devices(system)
        except ValueError as error:
            raise ConfigError(f"--hardware={error}") from error
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"--hardware={system.name}: {reason} (TPU compilers come with the extra 'tpu')"
            ) from error
    if _COUNT_FLAG not in os.environ.get("XLA_FLAGS", ""):
        # Where JAX has started already, it has the devices it has.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", system.devices)
    found = jax.devices("cpu")
    if len(found) < system.devices:
        raise ConfigError(
            f"--hardware={system.name}: JAX simulates {len(found)} devices here; leave XLA_FLAGS and "
            "jax_num_cpu_devices to this command"
        )
    return tuple(found[: system.devices])


def recipe_on(run: RunConfig, facts: Facts, system: System) -> Recipe:
    """The recipe of a run as the trainer would build it on that machine; raises ``ConfigError`` as the trainer does."""
    devices = devices_of(system)
    settled = settle_mesh(run, len(devices))
    return build_recipe(
        settled,
        steps=facts.steps,
        vocab_size=facts.vocab_size,
        start_id=facts.start_id,
        target=system.target,
        mesh=make_mesh(settled.mesh, devices),
    )


def placed_on(recipe: Recipe, device: jax.Device) -> Any:
    """The state's shapes where the run keeps them: by its shardings, or on the one ``device`` of a run without mesh."""
    if recipe.mesh is not None:
        shardings: Any = state_shardings(recipe)
    else:
        alone = jax.sharding.SingleDeviceSharding(device)
        shardings = jax.tree.map(lambda _: alone, recipe.abstract)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        recipe.abstract,
        shardings,
    )


def teacher_on(recipe: Recipe, device: jax.Device) -> tuple[Any, ...]:
    """Shapes of the frozen weights that the train step takes beside the state, where it keeps them; () for none."""
    if not recipe.run.init.distills:
        return ()
    alone, shapes = jax.sharding.SingleDeviceSharding(device), abstract_teacher(recipe)
    places = jax.tree.map(lambda _: alone, shapes) if recipe.mesh is None else programs.teacher_places(recipe)
    return (jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), shapes, places),)


def lower_programs(recipe: Recipe, device: jax.Device, names: tuple[str, ...]) -> dict[str, jax.stages.Lowered]:
    """The programs of a run that ``names`` lists and the run has, lowered for its mesh, or for one ``device``.

    They are the objects that the trainer calls (``training/programs.py``), lowered for arguments like the trainer's.
    """
    state = placed_on(recipe, device)
    train = recipe.run.train
    alone = None if recipe.mesh is not None else jax.sharding.SingleDeviceSharding(device)

    def abstract(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=alone), tree)

    targets_BT = abstract(jax.ShapeDtypeStruct((train.batch_size, recipe.run.data.sequence_length), jnp.int32))
    found = {}
    if TRAIN in names:
        rates = abstract(jax.eval_shape(lambda: recipe.rates))
        found[TRAIN] = programs.train_step(recipe).lower(state, targets_BT, rates, *teacher_on(recipe, device))
    if MEET in names and recipe.replicas > 1:
        found[MEET] = programs.meet_step(recipe).lower(state)
    # What nobody asks for is not even traced: the attention of a GPU that is not here cannot be.
    if not recipe.rewires or not {SCORE, REWIRE} & set(names):
        return found
    scores: Any = NO_SCORES
    due = recipe.run.topology.every
    if wants_scores(recipe, due):
        score_step = programs.score_step(recipe)
        scores = abstract(jax.eval_shape(score_step, state, targets_BT)[1])
        if SCORE in names:
            found[SCORE] = score_step.lower(state, targets_BT)
    if REWIRE in names:
        plan = abstract(jax.eval_shape(lambda: plan_at(recipe, due)))
        found[REWIRE] = programs.rewire_step(recipe).lower(state, plan, scores)
    return found


def compile_or_overflow(lowered: jax.stages.Lowered) -> jax.stages.Compiled | Overflow:
    """The compiled program, or by how much it is too large for its devices."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        overflow = read_overflow(str(error))
        if overflow is None:
            raise
        return overflow
