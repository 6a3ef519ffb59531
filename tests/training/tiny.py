"""A run small enough to train in a test: 2 layers, width 16, byte tokens, text written by the test."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.base import get_config
from sparsejax.config import RunConfig, resolve
from sparsejax.hardware.target import CPU
from sparsejax.training.recipe import Recipe, build_recipe

WORDS = ("the", "sparse", "model", "reads", "a", "block", "of", "weights", "and", "drops", "the", "smallest", "ones")


def write_text(path: Path, seed: int = 0, lines: int = 400) -> Path:
    """A file of random sentences."""
    draw = random.Random(seed)
    text = "\n\n".join(" ".join(draw.choices(WORDS, k=12)) for _ in range(lines))
    path.write_text(text, encoding="utf-8")
    return path


def tiny_settings(directory: Path, **changes: Any) -> dict[str, Any]:
    """The nested settings of a tiny run; ``changes`` are ``section_key=value`` with the first '_' as the dot."""
    config = get_config()
    config.model.update(size="tiny", hidden=16, mlp=32, heads=2, kv_heads=2, head_dim=8, layers=2)
    config.model.compute_dtype = "float32"
    config.topology.update(density=0.5, block=(4, 4), every=3)
    config.optim.update(lr=1e-2, ramp=4)
    config.data.update(source="text", path=str(directory / "text.txt"), tokenizer="byte", sequence_length=16)
    config.data.validation_path = str(directory / "validation.txt")
    # Twenty rows: an epoch is five batches of four, so that twelve steps cross two epoch edges.
    config.data.update(cache_dir=str(directory / "cache"), unique_tokens=320)
    config.train.update(steps=12, batch_size=4, log_every=1, eval_every=0, eval_tokens=256, checkpoint_every=4)
    # The tests' machine pretends to have eight devices; a run on more than one says so.
    config.mesh.fsdp = 1
    settings: dict[str, Any] = config.to_dict()
    for name, value in changes.items():
        section, _, key = name.partition("_")
        assert key in settings[section], name
        settings[section][key] = value
    return settings


def tiny_run(directory: Path, **changes: Any) -> RunConfig:
    """A resolved tiny run whose text exists."""
    if not (directory / "text.txt").exists():
        write_text(directory / "text.txt")
        write_text(directory / "validation.txt", seed=1, lines=20)
    return resolve(tiny_settings(directory, **changes))


def tiny_recipe(directory: Path, **changes: Any) -> Recipe:
    """The static half of a tiny run on byte tokens."""
    run = tiny_run(directory, **changes)
    return build_recipe(run, steps=run.train.steps, vocab_size=257, start_id=256, target=CPU)


def quiet_console() -> Console:
    """A console that is no terminal and keeps what is printed (``console.file.getvalue()``)."""
    return Console(file=io.StringIO(), width=200)
