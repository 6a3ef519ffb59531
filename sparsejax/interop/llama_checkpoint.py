"""A LLaMA checkpoint of Hugging Face's layout, read tensor by tensor into this project's dense parameters.

Axes: L layers, K input width, N output width, V vocabulary, D hidden.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

# NumPy knows bfloat16 only once this is imported.
import ml_dtypes  # noqa: F401
import msgspec
import numpy as np
import safetensors

from sparsejax.config import ConfigError
from sparsejax.files.folders import weight_files
from sparsejax.files.json_records import read_record
from sparsejax.files.names import confined
from sparsejax.files.text import one_line
from sparsejax.interop.exported_model import check_finite
from sparsejax.interop.llama_config import LlamaShape, read_config
from sparsejax.interop.llama_tensors import (
    EMBEDDING,
    HEAD,
    LINEARS,
    NORM,
    NORMS,
    layer_tensor,
    tensor_shapes,
)

Tree = dict[str, Any]

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Old conversions keep these; they follow from config.json.
_HARMLESS = "rotary_emb.inv_freq"
# A line names at most so many tensors.
_MOST_NAMES = 4


class _Index(msgspec.Struct):
    """``model.safetensors.index.json``: in which file each tensor is."""

    weight_map: dict[str, str]


class TensorSource(Protocol):
    """A decoder whose tensors are read by their names: a checkpoint, or whatever can be given its layout."""

    @property
    def directory(self) -> Path:
        """What errors name."""
        ...

    @property
    def shape(self) -> LlamaShape:
        """Its decoder."""
        ...

    @property
    def tensor(self) -> Callable[[str], np.ndarray]:
        """A tensor by its name, float32, ``[out, in]`` for a linear layer."""
        ...


@dataclasses.dataclass(frozen=True)
class LlamaCheckpoint:
    """A checkpoint whose tensors are all there, with the right shapes; none of them has been read yet.

    Attributes:
      directory: where it lies.
      shape: what ``config.json`` says.
      dtype: of its tensors, ``"float32"``, ``"float16"`` or ``"bfloat16"``; the widest if they differ.
      files: tensor -> the file that holds it.
    """

    directory: Path
    shape: LlamaShape
    dtype: str
    files: Mapping[str, Path]

    def tensor(self, name: str) -> np.ndarray:
        """One tensor as float32, ``[out, in]`` for a linear layer; exact, all three dtypes are subsets of float32.

        Raises:
          KeyError: no tensor of that name.
        """
        with safetensors.safe_open(self.files[name], framework="np") as file:
            array = np.asarray(file.get_tensor(name), np.float32)
        check_finite(array, f"{self.files[name]}: {name}", "copy the checkpoint again, or choose another")
        return array


def read_llama(directory: Path) -> LlamaCheckpoint:
    """Open the checkpoint in ``directory``: ``config.json`` and one safetensors file or several with an index.

    Only headers are read. Tensors that old conversions left (``rotary_emb.inv_freq``) and the head of a tied model are
    passed over.

    Raises:
      ConfigError: no such checkpoint, a broken file, an architecture that is not LLaMA's, or tensors that are missing,
        unknown, of another shape or no floats; one line that names them.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such directory; name that of a LLaMA checkpoint")
    shape = read_config(directory)
    found: dict[str, tuple[Path, tuple[int, ...], str]] = {}
    for path in _tensor_files(directory):
        for name, (sizes, dtype) in _headers(path).items():
            found[name] = (path, sizes, dtype)
    _check_index(directory, found)
    expected = tensor_shapes(shape)
    extra = [name for name in found if name not in expected and not name.endswith(_HARMLESS) and name != HEAD]
    for problem, names in (("lacks", [name for name in expected if name not in found]), ("has unknown", extra)):
        if names:
            raise ConfigError(f"{directory}: {problem} tensors {_listed(names)}; this is no plain LLaMA checkpoint")
    for name, sizes in expected.items():
        path, there, dtype = found[name]
        if there != sizes:
            raise ConfigError(f"{path}: {name} has shape {list(there)}, config.json asks for {list(sizes)}")
        if dtype not in _FLOATS:
            raise ConfigError(f"{path}: {name} is of type {dtype}; only {', '.join(_FLOATS)} are read")
    types = {found[name][2] for name in expected}
    dtype = _FLOATS[types.pop()] if len(types) == 1 else "float32"
    return LlamaCheckpoint(directory, shape, dtype, {name: found[name][0] for name in expected})


def to_params(checkpoint: TensorSource, *, vocab_size: int, mlp: int) -> Tree:
    """The dense parameters of the checkpoint, float32 NumPy arrays in the tree of ``models.llama.Llama`` at density 1.

    ``layers/attention/q/kernel`` and its like are ``[L, K, N]``, norms ``[L, D]``, the embedding ``[V, D]``, the head
    ``[D, V]`` (none if it is tied). ``topology.blocks.from_dense`` cuts a layer of a kernel into blocks.

    Args:
      checkpoint: an opened checkpoint.
      vocab_size: tokens of the tokenizer; rows of the embedding past them are padding and left out.
      mlp: inner width of the model to fill; what it has more than the checkpoint is zero, which changes no output:
        ``silu(0) * 0`` is 0.

    Raises:
      ConfigError: the checkpoint has fewer tokens than the tokenizer, or a wider MLP.
    """
    shape = checkpoint.shape
    if vocab_size > shape.vocab_size:
        raise ConfigError(
            f"{checkpoint.directory}: has {shape.vocab_size} tokens, the tokenizer {vocab_size}; use the tokenizer of "
            "the checkpoint"
        )
    if mlp < shape.mlp:
        raise ConfigError(f"{checkpoint.directory}: its MLP is {shape.mlp} wide, model.mlp={mlp}; set that alike")
    layers: Tree = {
        name: {"scale": np.stack([checkpoint.tensor(layer_tensor(i, module)) for i in range(shape.layers)])}
        for name, module in NORMS.items()
    }
    for kind in LINEARS:
        room, name = kind.split(".")
        layers.setdefault(room, {})[name] = {"kernel": _kernels(checkpoint, kind, mlp)}
    params: Tree = {
        "embed": {"embedding": checkpoint.tensor(EMBEDDING)[:vocab_size]},
        "layers": layers,
        "norm": {"scale": checkpoint.tensor(NORM)},
    }
    if not shape.tied_head:
        params["head"] = {"kernel": np.ascontiguousarray(checkpoint.tensor(HEAD)[:vocab_size].T)}
    return params


def _kernels(checkpoint: TensorSource, kind: str, mlp: int) -> np.ndarray:
    """All layers of one kind, ``[L, K, N]``, the MLP filled up with zeros."""
    outputs, inputs = tensor_shapes(checkpoint.shape)[layer_tensor(0, LINEARS[kind])]
    width = {"mlp.gate": (inputs, mlp), "mlp.up": (inputs, mlp), "mlp.down": (mlp, outputs)}
    sizes = width[kind] if kind in width else (inputs, outputs)
    kernels = np.zeros((checkpoint.shape.layers, *sizes), np.float32)
    for layer in range(checkpoint.shape.layers):
        kernels[layer, :inputs, :outputs] = checkpoint.tensor(layer_tensor(layer, LINEARS[kind])).T
    return kernels


def _tensor_files(directory: Path) -> list[Path]:
    """The file or the shards that hold the tensors."""
    index = directory / INDEX_FILE
    if not index.is_file():
        if (directory / SINGLE_FILE).is_file():
            return [directory / SINGLE_FILE]
        there = weight_files(directory)
        if any(name.endswith(".safetensors") for name in there):
            raise ConfigError(
                f"{directory}: has {one_line(there[-1])}, but neither {SINGLE_FILE} nor {INDEX_FILE}; copy that too"
            )
        held = f"holds {one_line(there[0])}, " if there else ""
        raise ConfigError(f"{directory}: {held}neither {SINGLE_FILE} nor {INDEX_FILE}; convert it to safetensors first")
    names = sorted(set(_weight_map(index).values()))
    paths = [confined(directory, name, named_in=index, links=True) for name in names]
    absent = [name for name, path in zip(names, paths, strict=True) if not path.is_file()]
    if absent:
        raise ConfigError(f"{directory}: lacks the shards {_listed(absent)} that {INDEX_FILE} names; copy it again")
    return paths


def _weight_map(index: Path) -> dict[str, str]:
    told = read_record(index, _Index, fix="copy the checkpoint again").weight_map
    if not told:
        raise ConfigError(f"{index}: names no tensors; copy the checkpoint again")
    return told


def _check_index(directory: Path, found: Mapping[str, tuple[Path, tuple[int, ...], str]]) -> None:
    """Every tensor is in the shard that the index says."""
    index = directory / INDEX_FILE
    if not index.is_file():
        return
    wrong = [name for name, file in _weight_map(index).items() if name not in found or found[name][0].name != file]
    if wrong:
        raise ConfigError(f"{index}: names tensors that their shard lacks: {_listed(wrong)}; copy the checkpoint again")


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and safetensors dtype of every tensor of a file."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            return {name: (tuple(each.get_shape()), each.get_dtype()) for name, each in slices.items()}
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"{path}: is no whole safetensors file ({error}); copy the checkpoint again") from error


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return one_line(", ".join(names[:_MOST_NAMES])) + more
