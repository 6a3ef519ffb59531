"""Run directories with a checkpoint and no training: everything that an export reads, in a second."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.data.tokenizer import ByteTokenizer, Tokenizer
from sparsejax.hardware.target import CPU
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.recipe import Recipe, build_recipe, fresh_state
from sparsejax.training.workdir import write_manifest
from tests.training.tiny import tiny_run

STATIC = {"topology_drop": "none", "topology_grow": "none", "topology_method": "static"}


def write_run(directory: Path, tokenizer: Tokenizer | None = None, **changes: Any) -> tuple[Path, Recipe]:
    """A run directory whose weights are the first draw and whose norms are not all ones; and its recipe."""
    run, tokenizer = tiny_run(directory, **STATIC | changes), tokenizer or ByteTokenizer()
    recipe = build_recipe(
        run, steps=run.train.steps, vocab_size=tokenizer.vocab_size, start_id=tokenizer.start_id, target=CPU
    )
    state = jax.jit(partial(fresh_state, recipe))(run.seeds.init, run.seeds.topology)
    random = np.random.default_rng(0)

    def uneven(path: Any, leaf: jax.Array) -> np.ndarray:
        draw = random.uniform(0.5, 1.5, leaf.shape) if path[-1].key == "scale" else 5 * np.asarray(leaf)
        return draw.astype(np.float32)

    state = dataclasses.replace(state, params=jax.tree_util.tree_map_with_path(uneven, state.params))
    workdir = directory / "run"
    workdir.mkdir(parents=True)
    write_manifest(workdir, run, run.train.steps, "a" * 64, tokenizer.digest)
    tokenizer.save(workdir / "tokenizer")
    with Checkpoints(workdir, keep_last=1, keep_every=0, notice=print) as checkpoints:
        checkpoints.save(jax.device_put(state), run.to_dict())
        checkpoints.wait()
    return workdir, recipe
