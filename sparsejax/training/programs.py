"""The compiled programs of a run: the functions of this room under ``jax.jit``, with the shardings of the run's mesh.

The trainer runs these objects, and ``sparsejax check`` lowers the same ones for devices that are not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from sparsejax.models.parallel import REPLICA
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology.keys import seed_argument
from sparsejax.training.cut import cut
from sparsejax.training.distill import teacher_specs
from sparsejax.training.growth_scores import make_score_step
from sparsejax.training.outer import combined, make_apart_step, make_meet_step
from sparsejax.training.recipe import Recipe, fresh_state, starting_state
from sparsejax.training.resize import resize
from sparsejax.training.rewiring import make_fade_step, make_rewire_step
from sparsejax.training.sharding import batch_sharding, shardings, state_shardings
from sparsejax.training.state import TrainState
from sparsejax.training.steps import make_eval_step, make_train_step

# jax.jit objects; what they take and give is said by the functions they wrap.
Program = Any

# One program for all kinds that are cut alike.
_CUT = jax.jit(cut, static_argnums=(0, 1, 2))


def init_state(recipe: Recipe) -> TrainState:
    """The state before the first step: a pure function of the seeds."""
    seeds = recipe.run.seeds
    state: TrainState = init_program(recipe)(seed_argument(seeds.init), seed_argument(seeds.topology))
    return state


def init_program(recipe: Recipe) -> Program:
    """``recipe.fresh_state`` of the two seeds. Every device makes its own part: no array is ever whole on a host."""
    return jax.jit(partial(fresh_state, recipe), **_out(recipe, _state(recipe)))


def cut_program(recipe: Recipe, name: str) -> Program:
    """``cut.cut`` for one sparse kind."""
    weight, program = recipe.sparse[name], _CUT
    if recipe.mesh is not None:
        room, kind = name.split(".")
        places = state_shardings(recipe)
        of_kind = places.params["layers"][room][kind], places.topology["layers"][room][kind]
        program = jax.jit(cut, static_argnums=(0, 1, 2), out_shardings=of_kind)
    return partial(program, weight.grid, weight.count, weight.capacity)


def starting_program(recipe: Recipe) -> Program:
    """``recipe.starting_state`` of params and topology, which are donated."""
    return jax.jit(partial(starting_state, recipe), donate_argnums=(0, 1), **_out(recipe, _state(recipe)))


def train_step(recipe: Recipe) -> Program:
    """``steps.make_train_step``, or ``outer.make_apart_step`` for replicas that train apart; the state is donated."""
    make, metrics = make_train_step, _everywhere(recipe)
    if recipe.replicas > 1:
        make, metrics = make_apart_step, _by_replica(recipe)
    arguments: tuple[Any, ...] = (_state(recipe), _batch(recipe), _everywhere(recipe))
    if recipe.run.init.distills:
        arguments += (teacher_places(recipe),)
    placing = _placing(recipe, arguments, (_state(recipe), metrics))
    return jax.jit(make(recipe), donate_argnums=0, **placing)


def meet_step(recipe: Recipe) -> Program:
    """``outer.make_meet_step``; the state is donated."""
    state = _state(recipe)
    return jax.jit(make_meet_step(recipe), donate_argnums=0, **_placing(recipe, (state,), (state, _everywhere(recipe))))


def combined_metrics(recipe: Recipe) -> Program:
    """``outer.combined``."""
    return jax.jit(combined, **_placing(recipe, (_by_replica(recipe),), _everywhere(recipe)))


def eval_step(recipe: Recipe) -> Program:
    """``steps.make_eval_step``."""
    state = _state(recipe)
    topology = None if state is None else state.topology
    params = None if state is None else state.params
    placing = _placing(recipe, (params, topology, _batch(recipe)), _everywhere(recipe))
    return jax.jit(make_eval_step(recipe), **placing)


def score_step(recipe: Recipe) -> Program:
    """``growth_scores.make_score_step``; the state is donated."""
    state = _state(recipe)
    return jax.jit(
        make_score_step(recipe), donate_argnums=0, **_placing(recipe, (state, _batch(recipe)), (state, None))
    )


def rewire_step(recipe: Recipe) -> Program:
    """``rewiring.make_rewire_step``; the state is donated."""
    state = _state(recipe)
    placing = _placing(recipe, (state, _everywhere(recipe), None), (state, _everywhere(recipe)))
    return jax.jit(make_rewire_step(recipe), donate_argnums=0, **placing)


def fade_step(recipe: Recipe) -> Program:
    """``rewiring.make_fade_step``; the state is donated."""
    state, whole = _state(recipe), _everywhere(recipe)
    return jax.jit(make_fade_step(recipe), donate_argnums=0, **_placing(recipe, (state, whole, whole), state))


def resize_step(before: Mapping[str, SparseWeight], after: Recipe) -> Program:
    """``resize.resize`` from the slots of ``before`` to those of a recipe."""
    return jax.jit(partial(resize, before=before, after=after.sparse), **_out(after, _state(after)))


def teacher_places(recipe: Recipe) -> Any:
    """Where the params of a run's teacher live; None without a mesh."""
    return None if recipe.mesh is None else shardings(recipe, teacher_specs(recipe))


def _state(recipe: Recipe) -> Any:
    return None if recipe.mesh is None else state_shardings(recipe)


def _batch(recipe: Recipe) -> Any:
    return None if recipe.mesh is None else batch_sharding(recipe)


def _everywhere(recipe: Recipe) -> Any:
    return None if recipe.mesh is None else NamedSharding(recipe.mesh, PartitionSpec())


def _by_replica(recipe: Recipe) -> Any:
    return None if recipe.mesh is None else NamedSharding(recipe.mesh, PartitionSpec(REPLICA))


def _placing(recipe: Recipe, arguments: tuple[Any, ...], results: Any) -> dict[str, Any]:
    """Shardings for ``jax.jit``; none without a mesh, whose programs follow their arguments to any device."""
    return {} if recipe.mesh is None else {"in_shardings": arguments, "out_shardings": results}


def _out(recipe: Recipe, results: Any) -> dict[str, Any]:
    return {} if recipe.mesh is None else {"out_shardings": results}
