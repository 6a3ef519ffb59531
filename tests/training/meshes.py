"""A tiny run on meshes of the eight devices that the tests' machine pretends to have."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.hardware.target import CPU
from sparsejax.training import programs
from sparsejax.training.growth_scores import NO_SCORES, wants_scores
from sparsejax.training.mesh import make_mesh, settle_mesh
from sparsejax.training.recipe import Recipe, build_recipe
from sparsejax.training.rewire_plan import is_due, plan_at
from sparsejax.training.state import TrainState
from tests.training.tiny import tiny_run

# Eight shares, so that the tensor axis can have one, two, four or eight devices.
WIDTHS = {
    "model_hidden": 32,
    "model_mlp": 64,
    "model_heads": 8,
    "model_kv_heads": 8,
    "model_head_dim": 4,
    "topology_shards": 8,
    "topology_every": 10,
    "train_steps": 30,
    "train_batch_size": 16,
    "data_unique_tokens": 0,
}

Shape = tuple[int, int, int]
ONE: Shape = (1, 1, 1)


def mesh_recipe(directory: Path, shape: Shape, *, sequence: bool = False, **changes: Any) -> Recipe:
    """The recipe of the tiny run on ``replica x fsdp x tensor`` devices."""
    run = tiny_run(directory, **(WIDTHS | changes))
    replica, fsdp, tensor = shape
    mesh = dataclasses.replace(run.mesh, replica=replica, fsdp=fsdp, tensor=tensor, sequence=sequence)
    run = settle_mesh(dataclasses.replace(run, mesh=mesh), len(jax.devices()))
    return build_recipe(
        run,
        steps=run.train.steps,
        vocab_size=257,
        start_id=256,
        target=CPU,
        mesh=make_mesh(run.mesh, jax.devices()),
    )


def batch(number: int, rows: int = 16, length: int = 16) -> np.ndarray:
    """One of three batches, so that there is something to learn; half of the last row is padding."""
    half = np.random.default_rng(number % 3).integers(0, 256, (rows, length // 2), dtype=np.int32)
    both = np.concatenate([half, half], axis=1)
    both[-1, length // 2 :] = -1
    return both


def train_steps(recipe: Recipe, steps: int) -> tuple[list[float], TrainState]:
    """Losses of so many steps, rewirings included, and the state after them."""
    state = programs.init_state(recipe)
    step, rewire, score = programs.train_step(recipe), programs.rewire_step(recipe), programs.score_step(recipe)
    rates, losses = recipe.rates, []
    for number in range(steps):
        state, metrics = step(state, batch(number), rates)
        losses.append(float(metrics["loss"]))
        scores = NO_SCORES
        if wants_scores(recipe, number + 1):
            state, scores = score(state, batch(number))
        if is_due(recipe, number + 1):
            state, _ = rewire(state, plan_at(recipe, number + 1), scores)
    return losses, state
