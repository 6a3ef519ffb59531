"""Any model there is a directory of, ready for inference: a run, an export of either format, a LLaMA checkpoint.

An export keeps its block masks, so its sparse weights are stored and multiplied as active blocks again.

Axes: L layers, K input width, N output width, n slots, bk x bn the block, R x C block rows and columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.config import ConfigError, ModelConfig
from sparsejax.data.tokenizer import Tokenizer, hub_tokenizer, load_tokenizer
from sparsejax.files.folders import hub_model_type
from sparsejax.inference.engine import Engine
from sparsejax.inference.vocabulary import absent_ids
from sparsejax.interop.exported_model import FACTS_FILE, check_finite
from sparsejax.interop.from_export import is_export, read_export
from sparsejax.interop.llama_checkpoint import INDEX_FILE, read_llama
from sparsejax.interop.llama_config import LlamaShape, end_ids
from sparsejax.interop.llama_tensors import EMBEDDING, HEAD, LINEARS, NORM, NORMS, layer_tensor
from sparsejax.interop.packed_file import PACKED_FILE
from sparsejax.models.functional import Tree
from sparsejax.models.shapes import SHARD_AXES, shape_of_model, weight_shapes
from sparsejax.models.weight_table import SparseWeight
from sparsejax.topology.blocks import BlockGrid, from_dense, index_from_mask
from sparsejax.training.restore import Weights, restore_run
from sparsejax.training.workdir import Notice, RunDirectory

Tensor = Callable[[str], np.ndarray]


@dataclasses.dataclass(frozen=True)
class OpenModel:
    """A trained model and what is needed to use it.

    Attributes:
      model: widths and numerics.
      weights: the density table of the arrays.
      params, topology: trees as ``models.functional.abstract`` has them.
      tokenizer: the one it was trained with.
      length: tokens of a training row: what its positions were trained for.
      end_ids: tokens that end a text.
    """

    model: ModelConfig
    weights: Mapping[str, SparseWeight]
    params: Tree
    topology: Tree
    tokenizer: Tokenizer
    length: int
    end_ids: tuple[int, ...]

    def engine(self, devices: Sequence[jax.Device]) -> Engine:
        """The model on these devices, which share the rows of a batch."""
        rows = self.params["embed"]["embedding"].shape[0]
        absent = absent_ids(self.tokenizer, rows)
        return Engine(self.model, self.weights, self.params, self.topology, devices=devices, absent=absent)


def open_model(directory: RunDirectory, notice: Notice, weights: Weights = "raw") -> OpenModel:
    """Open a run (its newest readable checkpoint), an export, or a LLaMA checkpoint with its tokenizer.

    Args:
      directory: where it lies; only a run may lie in a bucket.
      notice: told in one line of whatever the user must know.
      weights: of a run, those trained or their average.

    Raises:
      ConfigError: there is nothing of the kind, or it is broken.
      CheckpointError: the run has checkpoints, none of them can be read.
    """
    if isinstance(directory, Path) and is_export(directory):
        exported = read_export(directory)
        dtype = "bfloat16" if exported.dtype == "bfloat16" else "float32"
        return _of_tensors(directory, exported.shape, exported.tensor, exported.masks, dtype)
    if isinstance(directory, Path) and _is_checkpoint(directory):
        checkpoint = read_llama(directory)
        dtype = "bfloat16" if checkpoint.dtype == "bfloat16" else "float32"
        return _of_tensors(directory, checkpoint.shape, checkpoint.tensor, {}, dtype)
    if not isinstance(directory, Path) and (hub_model_type(directory) or (directory / FACTS_FILE).exists()):
        raise ConfigError(f"--workdir={directory}: is no run, and only a run may lie in a bucket; copy it here first")
    trained = restore_run(directory, notice, weights)
    state, run = trained.state, trained.run
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        name = "/".join(str(part.key) for part in path)
        check_finite(np.asarray(leaf), f"{directory}: {name}", "the run diverged; use an earlier checkpoint")
    return OpenModel(
        run.model,
        trained.recipe.weights,
        state.params,
        state.topology,
        trained.tokenizer,
        run.data.sequence_length,
        (trained.tokenizer.end_id,),
    )


def _is_checkpoint(directory: Path) -> bool:
    tensors = [path.name for path in directory.glob("*.safetensors") if path.name != PACKED_FILE]
    return bool(tensors) or (directory / INDEX_FILE).is_file()


def _of_tensors(
    directory: Path, shape: LlamaShape, tensor: Tensor, masks: Mapping[str, np.ndarray], dtype: str
) -> OpenModel:
    model = ModelConfig(
        size="",
        **shape.model_fields,
        init_std=0.0,
        init="normal",
        compute_dtype=dtype,
        remat="none",
        implementation="auto",
        attention="auto",
    )
    widths = weight_shapes(shape_of_model(model, shape.mlp, shape.vocab_size))
    layers: Tree = {
        name: {"scale": np.stack([tensor(layer_tensor(i, module)) for i in range(shape.layers)])}
        for name, module in NORMS.items()
    }
    weights: dict[str, SparseWeight] = {}
    places: Tree = {}
    for kind, module in LINEARS.items():
        room, name = kind.split(".")
        names = [layer_tensor(i, module) for i in range(shape.layers)]
        active = [masks[each].T for each in names if each in masks]
        weights[kind] = _weight(kind, widths[kind], active if len(active) == shape.layers else [])
        kernels = (tensor(each).T for each in names)
        if weights[kind].packed:
            stacked = [_blocks(kernel, mask, weights[kind]) for kernel, mask in zip(kernels, active, strict=True)]
            values, index = jax.tree.map(lambda *leaves: np.stack(leaves), *stacked)
            layers.setdefault(room, {})[name] = {"values": values}
            places.setdefault(room, {})[name] = index
        else:
            layers.setdefault(room, {})[name] = {"kernel": np.stack(list(kernels))}
    params: Tree = {"embed": {"embedding": tensor(EMBEDDING)}, "layers": layers, "norm": {"scale": tensor(NORM)}}
    if not shape.tied_head:
        params["head"] = {"kernel": tensor(HEAD).T}
    topology = {"layers": places} if places else {}
    tokenizer = _tokenizer(directory, shape)
    ends = tuple(dict.fromkeys([tokenizer.end_id, *end_ids(directory)]))
    return OpenModel(model, weights, params, topology, tokenizer, shape.longest, ends)


def _weight(name: str, widths: tuple[int, int], active: Sequence[np.ndarray]) -> SparseWeight:
    """A kind with these masks ``[R, C]``, one a layer, in slots for the fullest of them; without masks a dense one."""
    if not active or len({mask.shape for mask in active}) > 1:
        grid = BlockGrid(widths, (1, 1), shard_axis=SHARD_AXES[name])
        return SparseWeight(name, grid, count=grid.cells, capacity=grid.cells)
    rows, columns = active[0].shape
    grid = BlockGrid(widths, (widths[0] // rows, widths[1] // columns), shard_axis=SHARD_AXES[name])
    capacity = max(int(mask.sum()) for mask in active)
    count = round(sum(int(mask.sum()) for mask in active) / len(active))
    return SparseWeight(name, grid, count=count, capacity=capacity, shrinks=capacity == grid.cells)


def _blocks(
    kernel_KN: np.ndarray, mask_RC: np.ndarray, weight: SparseWeight
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Values and index arrays of one layer."""
    index = index_from_mask(mask_RC, weight.grid, weight.capacity)
    values = from_dense(jnp.asarray(kernel_KN), index, weight.grid).values
    arrays = {field.name: np.asarray(getattr(index, field.name)) for field in dataclasses.fields(index)}
    return np.asarray(values), arrays


def _tokenizer(directory: Path, shape: LlamaShape) -> Tokenizer:
    saved = (directory / "tokenizer_meta.json").is_file()
    tokenizer = load_tokenizer(directory) if saved else hub_tokenizer(directory)
    if tokenizer.vocab_size > shape.vocab_size:
        raise ConfigError(
            f"{directory}: its tokenizer has {tokenizer.vocab_size} tokens, its embedding {shape.vocab_size}; "
            "copy the tokenizer of the checkpoint"
        )
    return tokenizer
