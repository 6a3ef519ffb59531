"""Sparse model soups: one model that is the mean of several runs with one topology.

Zimmer, Spiegel and Pokutta 2023, "Sparse Model Soups": models trained from one mask under other seeds can be averaged
block by block without losing sparsity, which a mean of models with different masks would. Runs share a topology if
it is fixed (``topology.method=static``) and ``seeds.topology`` is equal; they should share ``seeds.init`` too, and
differ in ``seeds.data``, the learning rate or the weight decay: a mean of models from other first weights is usually
worse than each of them. The losses that are returned say whether it helped.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.config import ConfigError, differing_keys
from sparsejax.data.pipeline import Corpus, open_corpus, validation_batches
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.evaluate import EvalStep, Evaluation, evaluate
from sparsejax.training.restore import TrainedRun, restore_run
from sparsejax.training.state import TrainState, Tree
from sparsejax.training.steps import make_eval_step
from sparsejax.training.workdir import Notice, check_same_data, read_manifest, write_manifest

# What the ingredients of a soup may differ in; everything else that decides what is learned must be equal.
_FREE = ("seeds.", "optim.lr:", "optim.weight_decay:")


@dataclasses.dataclass(frozen=True)
class Soup:
    """What came out.

    Attributes:
      ingredients: the run directories.
      losses: validation loss of each, in nats a token.
      average: validation loss of their mean on the same tokens.
    """

    ingredients: tuple[str, ...]
    losses: tuple[float, ...]
    average: Evaluation


def average_runs(workdirs: Sequence[Path], out: Path, notice: Notice) -> Soup:
    """Average finished runs into the new run directory ``out``, which can be evaluated and sampled from.

    One ingredient is in memory at a time, beside the first one and the sum in float64. The optimizer state in
    ``out`` is empty. ``average.json`` names ingredients and losses; there is no ``result.json``, because a soup is no
    run that a scaling law could be fitted to.

    Raises:
      ConfigError: ``out`` exists; fewer than two runs; an unfinished one; or runs that differ in more than seeds,
        learning rate and weight decay, in data or in topology. Nothing was written.
    """
    if out.exists():
        raise ConfigError(f"--out={out}: exists already; choose a new directory")
    if len(set(workdirs)) < 2 or len(set(workdirs)) < len(workdirs):
        raise ConfigError(f"--runs={','.join(map(str, workdirs))}: must name at least two different run directories")
    manifests = [_manifest_of_finished(workdir) for workdir in workdirs]
    for workdir, manifest in zip(workdirs[1:], manifests[1:], strict=True):
        _check_same_but_for_seeds(workdirs[0], manifests[0], workdir, manifest)

    first = restore_run(workdirs[0], notice)
    corpus = open_corpus(first.run.data, notice)
    check_same_data(workdirs[0], corpus.data_digest, corpus.tokenizer.digest)
    eval_step = jax.jit(make_eval_step(first.recipe))
    losses = [_evaluate(first, eval_step, first.state.params, corpus).loss]
    total = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), first.state.params)
    for workdir in workdirs[1:]:
        state = restore_run(workdir, notice).state
        _check_same_topology(workdirs[0], first.state.topology, workdir, state.topology)
        losses.append(_evaluate(first, eval_step, state.params, corpus).loss)
        total = jax.tree.map(lambda one, other: one + np.asarray(other, np.float64), total, state.params)
    params = jax.tree.map(lambda leaf: (leaf / len(workdirs)).astype(np.float32), total)
    names = tuple(str(workdir) for workdir in workdirs)
    soup = Soup(names, tuple(losses), _evaluate(first, eval_step, params, corpus))
    _write(out, first, params, soup, notice)
    return soup


def different_weight(one: Tree, other: Tree) -> str | None:
    """The first weight, such as ``"attention.q"``, whose index differs in any bit between two topologies."""
    mine, theirs = (jax.tree_util.tree_leaves_with_path(tree) for tree in (one, other))
    for (path, array), (other_path, other_array) in zip(mine, theirs, strict=True):
        if path != other_path or not np.array_equal(array, other_array):
            return ".".join(str(part.key) for part in path[1:-1])
    return None


def _manifest_of_finished(workdir: Path) -> dict[str, Any]:
    manifest = read_manifest(workdir)
    if manifest is None:
        raise ConfigError(f"--runs={workdir}: holds no run (no config.json)")
    if not (workdir / "result.json").exists():
        raise ConfigError(f"--runs={workdir}: is not finished (no result.json); train it to its end first")
    return manifest


def _check_same_but_for_seeds(first: Path, wanted: dict[str, Any], workdir: Path, manifest: dict[str, Any]) -> None:
    lines = [line for line in differing_keys(wanted["config"], manifest["config"]) if not line.startswith(_FREE)]
    lines += [
        f"{key}: {wanted[key]} -> {manifest[key]}"
        for key in ("steps", "data_digest", "tokenizer_digest")
        if wanted[key] != manifest[key]
    ]
    if lines:
        raise ConfigError(
            f"--runs={first},{workdir}: differ in {'; '.join(lines)}; "
            "only seeds, learning rate and weight decay may differ"
        )


def _check_same_topology(first: Path, wanted: Tree, workdir: Path, topology: Tree) -> None:
    name = different_weight(wanted, topology)
    if name is not None:
        raise ConfigError(
            f"--runs={first},{workdir}: {name} has other active blocks; average runs of a fixed topology "
            "(topology.method=static) with equal seeds.topology"
        )


def _evaluate(trained: TrainedRun, eval_step: EvalStep, params: Tree, corpus: Corpus) -> Evaluation:
    run = trained.run
    batches = validation_batches(
        corpus.validation, run.data.sequence_length, run.train.batch_size, run.train.eval_tokens
    )
    found = evaluate(
        eval_step, params, trained.state.topology, batches, corpus.validation.bytes_per_token, lambda: False
    )
    assert found is not None
    return found


def _write(out: Path, first: TrainedRun, params: Tree, soup: Soup, notice: Notice) -> None:
    manifest = read_manifest(Path(soup.ingredients[0]))
    assert manifest is not None
    out.mkdir(parents=True)
    write_manifest(out, first.run, manifest["steps"], manifest["data_digest"], manifest["tokenizer_digest"])
    first.tokenizer.save(out / "tokenizer")
    (out / "average.json").write_text(json.dumps(dataclasses.asdict(soup), indent=1) + "\n", encoding="utf-8")
    empty = jax.tree.map(np.zeros_like, first.state.opt_state)
    state: TrainState = dataclasses.replace(first.state, params=params, opt_state=empty)
    with Checkpoints(out, keep_last=1, keep_every=0, notice=notice) as checkpoints:
        checkpoints.save(jax.device_put(state), first.run.to_dict())
        checkpoints.wait()
