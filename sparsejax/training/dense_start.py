"""Where a run starts that has ``init.from``: a dense checkpoint, checked, and made sparse on the way.

This room reads no checkpoints of other programs; whoever calls the trainer hands in what opens one.

Axes: L layers, K input width, N output width.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from itertools import islice
from typing import Protocol

import jax
import numpy as np

from sparsejax.config import ConfigError, ModelConfig
from sparsejax.data.pipeline import Corpus, TrainBatches
from sparsejax.data.tokenizer import Tokenizer
from sparsejax.training import programs
from sparsejax.training.calibration import input_norms
from sparsejax.training.distill import abstract_teacher
from sparsejax.training.feed import Feed
from sparsejax.training.recipe import Recipe
from sparsejax.training.sharding import batch_sharding, shardings, specs
from sparsejax.training.state import TrainState, Tree
from sparsejax.training.workdir import Notice, RunDirectory, started_with

# Tokens of the training text whose ids two tokenizers must agree on.
_COMPARED_TOKENS = 4096
# Tensors that one line names.
_MOST_NAMES = 3


class DenseCheckpoint(Protocol):
    """A LLaMA decoder on disk."""

    @property
    def vocab_size(self) -> int:
        """Rows of its embedding, padding included."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Its own, None if there is none to read."""
        ...

    def differences(self, model: ModelConfig) -> list[str]:
        """``model.field=value: the checkpoint has other`` for every setting that would make it another model."""
        ...

    def params(self, *, vocab_size: int, mlp: int) -> Tree:
        """Its weights as the dense parameters of ``models.llama.Llama``, float32 NumPy arrays.

        Raises:
          ConfigError: a file is broken, or the vocabulary or the MLP does not fit.
        """
        ...


# From the value of ``init.from``; raises ``ConfigError`` for what is no checkpoint.
OpenCheckpoint = Callable[[str, Notice], DenseCheckpoint]


@dataclasses.dataclass(frozen=True)
class DenseStart:
    """The dense weights of a run's start, on the host.

    Attributes:
      params: float32 NumPy arrays at the paths of the dense twin's parameters.
      digest: hexadecimal sha256 of all of them.
    """

    params: Tree
    digest: str

    def first_state(self, recipe: Recipe, batches: TrainBatches, notice: Notice) -> TrainState:
        """The state of a run before its first step: the weights that stay are bit for bit what they were.

        Args:
          recipe: the run.
          batches: of the run; their first rows are the calibration text of ``init.criterion=activation``.
          notice: told where the run starts.
        """
        init = recipe.run.init
        chosen = f"; the blocks that stay are chosen by {init.criterion}" if recipe.sparse else ""
        notice(f"starting from the dense weights in {init.from_}{chosen}")
        norms: dict[str, jax.Array | None] = dict.fromkeys(recipe.sparse)
        if init.criterion == "activation" and recipe.sparse:
            norms |= _calibrated(recipe, self.on_devices(recipe), batches)
        dense, layers = recipe.dense, {name: dict(kinds) for name, kinds in self.params["layers"].items()}
        topology = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), recipe.abstract.topology)
        blocks: dict[str, Tree] = {}
        for name in recipe.sparse:
            room, kind = name.split(".")
            # One kind at a time: the dense model need not fit beside the state.
            kernel = _placed(dense, {"layers": {room: {kind: layers[room].pop(kind)}}})["layers"][room][kind]["kernel"]
            blocks[name], topology["layers"][room][kind] = programs.cut_program(recipe, name)(kernel, norms[name])
        params = _placed(recipe, self.params | {"layers": layers})
        for name, values in blocks.items():
            room, kind = name.split(".")
            params["layers"][room][kind] = values
        state: TrainState = programs.starting_program(recipe)(params, topology)
        return state

    def teacher(self, recipe: Recipe, notice: Notice) -> Tree | None:
        """The weights as the train step of a run that learns from them takes them; None for any other run."""
        if not recipe.run.init.distills:
            return None
        held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract_teacher(recipe)))
        notice(f"learning from the dense weights in {recipe.run.init.from_}: {held / 2**20:.1f} MiB beside the state")
        return self.on_devices(recipe)

    def on_devices(self, recipe: Recipe) -> Tree:
        """The weights on the recipe's devices, cut as the dense twin's, matrices in the compute dtype."""
        stored = abstract_teacher(recipe)
        return _placed(recipe.dense, jax.tree.map(lambda leaf, as_: leaf.astype(as_.dtype), self.params, stored))


def open_start(
    recipe: Recipe, corpus: Corpus, workdir: RunDirectory, opens: OpenCheckpoint | None, notice: Notice
) -> DenseStart | None:
    """The dense weights that a run needs now: at its start, and again on resume if they teach it; else None.

    Args:
      recipe: the run.
      corpus: its data.
      workdir: its directory; what it was started from is in its manifest.
      opens: opens the checkpoint that ``init.from`` names.
      notice: told what cannot be compared.

    Raises:
      ConfigError: the checkpoint is no such thing, or is of another model or another tokenizer; or its weights are not
        those that the run in ``workdir`` started from.
      ValueError: the run has a dense start and nobody can open it.
    """
    init = recipe.run.init
    if not init.from_ or (has_checkpoints(workdir) and not init.distills):
        return None
    if opens is None:
        raise ValueError("init.from is set: the trainer needs something that opens checkpoints")
    checkpoint = opens(init.from_, notice)
    differences = checkpoint.differences(recipe.run.model)
    if differences:
        raise _error(recipe, f"{'; '.join(differences)}; set them alike, or leave all sizes of the model unset")
    _check_tokenizer(recipe, checkpoint, corpus, notice)
    params = checkpoint.params(vocab_size=recipe.vocab_size, mlp=recipe.shape.mlp)
    _check_tensors(recipe, params)
    start = DenseStart(params, digest_of(params))
    manifest = started_with(workdir)
    if manifest is not None and manifest["start_digest"] not in ("", start.digest):
        raise _error(
            recipe,
            f"its weights ({start.digest[:12]}) are not those that --workdir={workdir} started from "
            f"({manifest['start_digest'][:12]}); put the old ones back, or use a new --workdir",
        )
    return start


def start_digest(workdir: RunDirectory, start: DenseStart | None) -> str:
    """What a manifest says of a run's start: the digest of ``start``, else what it says already, "" for a draw."""
    manifest = started_with(workdir)
    known: str = "" if manifest is None else manifest["start_digest"]
    return known if start is None else start.digest


def has_checkpoints(workdir: RunDirectory) -> bool:
    """Whether a run has saved anything that it would continue from."""
    saved = workdir / "checkpoints"
    return saved.exists() and any(each.name.isdecimal() for each in saved.iterdir())


def digest_of(params: Tree) -> str:
    """Hexadecimal sha256 over the paths, shapes and bits of all arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}\n".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def _placed(recipe: Recipe, params: Tree) -> Tree:
    """Arrays of this host, some of a recipe's params at their paths, on its devices: each gets its own part."""
    if recipe.mesh is None:
        return jax.device_put(params)
    places = shardings(recipe, specs(recipe, params, "params/"))
    return jax.tree.map(
        lambda leaf, place: jax.make_array_from_callback(leaf.shape, place, lambda index: leaf[index]), params, places
    )


def _calibrated(recipe: Recipe, teacher: Tree, batches: TrainBatches) -> dict[str, jax.Array]:
    """Norms of the inputs over the first training batches, as many as ``init.calibration_tokens`` asks for."""
    train, length = recipe.run.train, recipe.run.data.sequence_length
    feed = Feed(None if recipe.mesh is None else batch_sharding(recipe), (train.batch_size, length))
    count = -(-recipe.run.init.calibration_tokens // (train.batch_size * length))
    stream = batches.iterate(0, feed.parts, feed.of)
    return input_norms(recipe.dense, teacher, map(feed.place, islice(stream, count)))


def _check_tokenizer(recipe: Recipe, checkpoint: DenseCheckpoint, corpus: Corpus, notice: Notice) -> None:
    """Ids must mean the same in the checkpoint and in the data; only rows of padding may be too many."""
    if not recipe.run.init.same_tokenizer:
        return
    own, data = checkpoint.tokenizer, corpus.tokenizer
    fix = "name it with data.tokenizer and data.tokenizer_path, or set init.same_tokenizer=False"
    if own is not None:
        difference = tokenizer_difference(own, corpus)
        if difference:
            raise _error(recipe, f"its tokenizer is not that of the data ({difference}); {fix}")
    elif checkpoint.vocab_size != data.vocab_size:
        raise _error(
            recipe, f"has {checkpoint.vocab_size} tokens and no tokenizer, the data's has {data.vocab_size}; {fix}"
        )
    else:
        notice(f"{recipe.run.init.from_} has no tokenizer to compare: its ids are taken for those of the data")


def tokenizer_difference(own: Tokenizer, corpus: Corpus) -> str:
    """How a tokenizer differs from that of a corpus; "" if every id means the same and the corpus gives equal ids.

    Files of one tokenizer may differ, as those of an export and of its run do; so what they do is compared: what each
    id stands for, and the ids of the first text of the corpus.
    """
    data = corpus.tokenizer
    if own.digest == data.digest:
        return ""
    for name in ("vocab_size", "start_id", "end_id"):
        mine, theirs = getattr(own, name), getattr(data, name)
        if mine != theirs:
            return f"{name} is {mine}, the data's {theirs}"
    for number in range(data.vocab_size):
        mine, theirs = own.decode([number]), data.decode([number])
        if mine != theirs:
            return f"token {number} is {mine!r}, the data's {theirs!r}"
    text = data.decode([int(token) for token in corpus.train.ids[:_COMPARED_TOKENS]])
    return "" if own.encode(text) == data.encode(text) else "the same text gets other ids"


def _check_tensors(recipe: Recipe, params: Tree) -> None:
    """The arrays are those of the dense twin, and all their numbers are numbers."""
    expected, found = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (recipe.dense.abstract.params, params))
    )
    for problem, names in (("lacks", expected.keys() - found.keys()), ("also has", found.keys() - expected.keys())):
        if names:
            raise _error(recipe, f"{problem} {', '.join(sorted(names)[:_MOST_NAMES])}; it is another kind of model")
    for name, leaf in found.items():
        if leaf.shape != expected[name].shape:
            raise _error(recipe, f"{name} has shape {leaf.shape}, this run needs {expected[name].shape}")
        if not np.isfinite(leaf).all():
            raise _error(recipe, f"{name} holds numbers that are not finite; the checkpoint is broken")


def _error(recipe: Recipe, problem: str) -> ConfigError:
    return ConfigError(f"init.from={recipe.run.init.from_}: {problem}")
