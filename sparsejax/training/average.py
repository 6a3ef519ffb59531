"""Sparse model soups: one model that is the mean of several runs with one topology.

Zimmer, Spiegel and Pokutta 2023, "Sparse Model Soups": models trained from one mask under other seeds can be averaged
block by block without losing sparsity, which a mean of models with different masks would. Runs share a topology if
it is fixed (``topology.method=static``) and ``seeds.topology`` is equal; they should share ``seeds.init`` too, and
differ in ``seeds.data``, the learning rate or the weight decay: a mean of models from other first weights is usually
worse than each of them. The losses that are returned say whether it helped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax.config import ConfigError, differing_keys
from sparsejax.data.pipeline import open_corpus, validation_batches
from sparsejax.files.json_records import json_row
from sparsejax.files.outputs import Outputs
from sparsejax.files.places import Place
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.evaluate import Evaluation, evaluate
from sparsejax.training.recipe import build_recipe
from sparsejax.training.restore import TrainedRun, Weights, check_runs, restore_run
from sparsejax.training.state import TrainState, Tree
from sparsejax.training.steps import make_eval_step
from sparsejax.training.workdir import (
    Notice,
    RunDirectory,
    add_commits,
    check_same_data,
    opened_manifest,
    read_manifest,
    run_directory,
    write_manifest,
)

RECORD = "average.json"
# What the ingredients of a soup may differ in; everything else that decides what is learned must be equal.
_FREE = ("seeds.", "optim.lr:", "optim.weight_decay:")


@dataclasses.dataclass(frozen=True)
class Soup:
    """What came out.

    Attributes:
      ingredients: the run directories, in the order given.
      shares: of each in the mean; they sum to 1, and a run that was left out has 0.
      losses: validation loss of each, in nats a token.
      average: validation loss of their mean on the same tokens.
      chosen_on: validation tokens that the choice of a greedy soup was made on, none of which ``losses`` and
        ``average`` are taken on; 0 where nothing was chosen.
    """

    ingredients: tuple[str, ...]
    shares: tuple[float, ...]
    losses: tuple[float, ...]
    average: Evaluation
    chosen_on: int


def average_runs(
    workdirs: Sequence[RunDirectory],
    out: object,
    notice: Notice,
    *,
    shares: Sequence[float] | None = None,
    greedy: bool = False,
    weights: Weights = "raw",
    overwrite: bool = False,
) -> Soup:
    """Average finished runs into the new run directory ``out``, which can be evaluated and sampled from.

    A greedy soup (Wortsman et al., "Model soups", arXiv 2203.05482, recipe 1) starts from the run of lowest loss and
    takes in the others in the order of their losses, each only if the loss of the mean does not rise. It chooses on the
    first half of the validation tokens and is reported on the second, so that its loss is not that of what it chose.

    One ingredient is in memory at a time, beside the first one and the sum in float64. ``out`` keeps no optimizer
    state and no average over time. ``average.json`` names ingredients, shares and losses; there is no ``result.json``,
    because a soup is no run that a scaling law could be fitted to.

    Args:
      workdirs: at least two.
      out: a path or a URI; made here, whole or not at all.
      notice: told, one line each, what is found broken, and the losses before the mean is written.
      shares: of each run, at least 0; they are divided by their sum. None is equal shares.
      greedy: choose, see above.
      weights: the weights of each run as trained, or their average over its steps.
      overwrite: replace an earlier average.

    Raises:
      ConfigError: ``out`` exists or cannot be made; fewer than two runs; an unfinished one; runs that differ in more
        than seeds, learning rate and weight decay, in data or in topology; or shares that are none. Nothing was
        written.
    """
    target = Outputs(overwrite, workdirs).tree("out", out, RECORD)
    if len(set(workdirs)) < 2 or len(set(workdirs)) < len(workdirs):
        raise ConfigError(f"--runs={','.join(map(str, workdirs))}: must name at least two different run directories")
    parts = _checked_shares(shares, len(workdirs), greedy)
    manifests = [_manifest_of_finished(workdir) for workdir in workdirs]
    for workdir, manifest in zip(workdirs[1:], manifests[1:], strict=True):
        _check_same_but_for_seeds(workdirs[0], manifests[0], workdir, manifest)

    check_runs(workdirs, weights)
    kitchen = _Kitchen(workdirs, weights, notice)
    reported = range(min(kitchen.first.run.train.eval_tokens, kitchen.corpus.validation.tokens))
    chosen_on = 0
    if greedy:
        chosen, reported = _halves(reported, kitchen.first.run.data.sequence_length)
        chosen_on = len(chosen)
        parts = kitchen.choose(chosen)
    losses = tuple(kitchen.evaluate(kitchen.params(workdir), reported).loss for workdir in workdirs)
    params = kitchen.mean(parts)
    names = tuple(str(workdir) for workdir in workdirs)
    soup = Soup(names, tuple(parts), losses, kitchen.evaluate(params, reported), chosen_on)
    for line in _lines(soup, target.folder):
        notice(line)
    with target.filled() as directory:
        _write(directory, kitchen.first, params, soup, notice)
    return soup


class _Kitchen:
    """The first run, its data and its program, by which all are evaluated."""

    def __init__(self, workdirs: Sequence[RunDirectory], weights: Weights, notice: Notice) -> None:
        self._workdirs, self._weights, self._notice = workdirs, weights, notice
        self.first = restore_run(workdirs[0], notice, weights=weights)
        self.corpus = open_corpus(self.first.run.data, notice)
        check_same_data(workdirs[0], self.corpus.data_digest, self.corpus.tokenizer.digest)
        self._eval_step = jax.jit(make_eval_step(self.first.recipe))

    def params(self, workdir: RunDirectory) -> Tree:
        """The weights of an ingredient, whose topology must be that of the first."""
        if workdir == self._workdirs[0]:
            return self.first.state.params
        state = restore_run(workdir, self._notice, weights=self._weights).state
        _check_same_topology(self._workdirs[0], self.first.state.topology, workdir, state.topology)
        return state.params

    def mean(self, parts: Sequence[float]) -> Tree:
        """The mean with these shares, float32, summed in float64."""
        total = None
        for workdir, part in zip(self._workdirs, parts, strict=True):
            if part > 0:
                one = jax.tree.map(lambda leaf, part=part: part * np.asarray(leaf, np.float64), self.params(workdir))
                total = one if total is None else jax.tree.map(np.add, total, one)
        mean: Tree = jax.tree.map(lambda leaf: leaf.astype(np.float32), total)
        return mean

    def choose(self, tokens: range) -> list[float]:
        """Equal shares of the runs that a greedy soup takes by these validation tokens, 0 of the others."""
        alone = [self.evaluate(self.params(workdir), tokens).loss for workdir in self._workdirs]
        order = sorted(range(len(alone)), key=lambda number: alone[number])
        taken, best = [order[0]], alone[order[0]]
        for number in order[1:]:
            loss = self.evaluate(self.mean(_equal([*taken, number], len(alone))), tokens).loss
            if loss <= best:
                taken, best = [*taken, number], loss
        return _equal(taken, len(alone))

    def evaluate(self, params: Tree, tokens: range) -> Evaluation:
        """Loss on these validation tokens."""
        run, split = self.first.run, self.corpus.validation
        part = dataclasses.replace(split, ids=split.ids[tokens.start : tokens.stop])
        batches = validation_batches(part, run.data.sequence_length, run.train.batch_size, len(tokens))
        topology = self.first.state.topology
        size = self.corpus.validation_bytes.between(tokens.start, tokens.stop)
        found = evaluate(self._eval_step, params, topology, batches, size, lambda: False)
        assert found is not None
        return found


def _equal(taken: Sequence[int], count: int) -> list[float]:
    return [1 / len(taken) if number in taken else 0.0 for number in range(count)]


def _checked_shares(shares: Sequence[float] | None, count: int, greedy: bool) -> list[float]:
    if shares is None:
        return _equal(range(count), count)
    given = ",".join(f"{share:g}" for share in shares)
    if greedy:
        raise ConfigError(f"--shares={given}: a greedy soup has equal shares of what it takes; leave one of both out")
    if len(shares) != count or not all(share >= 0 for share in shares) or not 0 < sum(shares) < float("inf"):
        raise ConfigError(f"--shares={given}: must be {count} numbers of at least 0, one a run, not all 0")
    return [share / sum(shares) for share in shares]


def _halves(tokens: range, row: int) -> tuple[range, range]:
    """Some tokens cut in two behind a whole row of them."""
    middle = len(tokens) // 2 // row * row
    if not middle:
        raise ConfigError(
            f"--greedy: needs two rows of {row} validation tokens, one to choose on and one to report on; there are "
            f"{len(tokens)} tokens"
        )
    return tokens[:middle], tokens[middle:]


def different_weight(one: Tree, other: Tree) -> str | None:
    """The first weight, such as ``"attention.q"``, whose index differs in any bit between two topologies."""
    mine, theirs = (jax.tree_util.tree_leaves_with_path(tree) for tree in (one, other))
    for (path, array), (other_path, other_array) in zip(mine, theirs, strict=True):
        if path != other_path or not np.array_equal(array, other_array):
            return ".".join(str(part.key) for part in path[1:-1])
    return None


def _manifest_of_finished(workdir: RunDirectory) -> dict[str, Any]:
    manifest = opened_manifest(workdir, "runs")
    if not (workdir / "result.json").exists():
        raise ConfigError(f"--runs={workdir}: is not finished (no result.json); train it to its end first")
    return manifest


def _check_same_but_for_seeds(
    first: RunDirectory, wanted: dict[str, Any], workdir: RunDirectory, manifest: dict[str, Any]
) -> None:
    lines = [line for line in differing_keys(wanted["config"], manifest["config"]) if not line.startswith(_FREE)]
    lines += [
        f"{key}: {wanted[key]} -> {manifest[key]}"
        for key in ("steps", "data_digest", "tokenizer_digest", "start_digest")
        if wanted[key] != manifest[key]
    ]
    if lines:
        raise ConfigError(
            f"--runs={first},{workdir}: differ in {'; '.join(lines)}; "
            "only seeds, learning rate and weight decay may differ"
        )


def _check_same_topology(first: RunDirectory, wanted: Tree, workdir: RunDirectory, topology: Tree) -> None:
    name = different_weight(wanted, topology)
    if name is not None:
        raise ConfigError(
            f"--runs={first},{workdir}: {name} has other active blocks; average runs of a fixed topology "
            "(topology.method=static) with equal seeds.topology"
        )


def _lines(soup: Soup, out: Place) -> Iterator[str]:
    for name, share, loss in zip(soup.ingredients, soup.shares, soup.losses, strict=True):
        yield f"{name}: {loss:.5f} nats/token, share {share:.4g}"
    found, used = soup.average, sum(share > 0 for share in soup.shares)
    yield (
        f"{out}: {found.loss:.5f} nats/token, {found.bits_per_byte:.5f} bits/byte, the mean of {used} runs on "
        f"the same {found.tokens:,} validation tokens"
    ) + (f"; chosen on {soup.chosen_on:,} others" if soup.chosen_on else "")


def _write(out: Path, first: TrainedRun, params: Tree, soup: Soup, notice: Notice) -> None:
    manifest = read_manifest(run_directory(soup.ingredients[0]))
    assert manifest is not None
    # A mean of runs has no past: it keeps neither moments nor an average over its steps.
    run = dataclasses.replace(first.run, optim=dataclasses.replace(first.run.optim, ema_decay=0.0))
    digests = (manifest[f"{name}_digest"] for name in ("data", "tokenizer", "start"))
    write_manifest(out, run, manifest["steps"], *digests)
    for ingredient in soup.ingredients:
        mixed = read_manifest(run_directory(ingredient))
        assert mixed is not None
        add_commits(out, mixed["git_commits"])
    first.tokenizer.save(out / "tokenizer")
    (out / RECORD).write_text(json_row(dataclasses.asdict(soup), indent=1) + "\n", encoding="utf-8")
    old = first.recipe
    recipe = build_recipe(
        dataclasses.replace(old.run, optim=run.optim),
        steps=old.steps,
        vocab_size=old.vocab_size,
        start_id=old.start_id,
        target=old.target,
        stage=old.stage,
    )
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), recipe.abstract.opt_state)
    state: TrainState = dataclasses.replace(first.state, params=params, opt_state=empty)
    with Checkpoints(out, keep_last=1, keep_every=0, notice=notice) as checkpoints:
        checkpoints.save(jax.device_put(state), run.to_dict())
        checkpoints.wait()
