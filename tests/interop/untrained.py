"""Run directories with a checkpoint and no training: everything that an export reads, without compiling a model."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.data.tokenizer import ByteTokenizer, Tokenizer
from sparsejax.hardware.target import CPU
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology.blocks import Index, index_from_positions
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.recipe import Recipe, build_recipe, with_index
from sparsejax.training.state import TrainState
from sparsejax.training.workdir import write_manifest
from tests.training.tiny import tiny_run

STATIC = {"topology_drop": "none", "topology_grow": "none", "topology_method": "static"}


def write_run(directory: Path, tokenizer: Tokenizer | None = None, **changes: Any) -> tuple[Path, Recipe]:
    """A run directory with random weights and topology, and norms that are not all ones; and its recipe."""
    run, tokenizer = tiny_run(directory, **STATIC | changes), tokenizer or ByteTokenizer()
    recipe = build_recipe(
        run, steps=run.train.steps, vocab_size=tokenizer.vocab_size, start_id=tokenizer.start_id, target=CPU
    )
    workdir = directory / "run"
    workdir.mkdir(parents=True)
    write_manifest(workdir, run, run.train.steps, "a" * 64, tokenizer.digest)
    tokenizer.save(workdir / "tokenizer")
    with Checkpoints(workdir, keep_last=1, keep_every=0, notice=print) as checkpoints:
        checkpoints.save(jax.device_put(random_state(recipe)), run.to_dict())
        checkpoints.wait()
    return workdir, recipe


def random_state(recipe: Recipe) -> TrainState:
    """A state of the recipe, step 0, drawn on the host; its optimizer state is zero."""
    random = np.random.default_rng(0)
    state: TrainState = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), recipe.abstract)

    def draw(path: Any, leaf: np.ndarray) -> np.ndarray:
        norm = path[-1].key == "scale"
        values = random.uniform(0.5, 1.5, leaf.shape) if norm else random.normal(0, 0.1, leaf.shape)
        return values.astype(np.float32)

    topology = state.topology
    for name, weight in recipe.sparse.items():
        layers = [_random_index(random, weight) for _ in range(recipe.run.model.layers)]
        topology = with_index(topology, name, jax.tree.map(lambda *leaves: np.stack(leaves), *layers))
    return dataclasses.replace(state, params=jax.tree_util.tree_map_with_path(draw, state.params), topology=topology)


def _random_index(random: np.random.Generator, weight: SparseWeight) -> Index:
    """As many blocks in every share as the table says; no free slots."""
    grid, count = weight.grid, weight.count // weight.grid.shards
    picked = [np.sort(random.permutation(grid.cells_per_share)[:count]) for _ in range(grid.shards)]
    return index_from_positions(np.asarray(picked, np.int32), grid)
