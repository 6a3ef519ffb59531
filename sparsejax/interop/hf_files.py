"""A model as the files that ``transformers`` opens: dense matrices with true zeros, beside them the block masks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from sparsejax.config import ConfigError
from sparsejax.interop.exported_model import DTYPES, Dtype, ExportedModel
from sparsejax.interop.llama_checkpoint import INDEX_FILE, SINGLE_FILE
from sparsejax.interop.llama_config import CONFIG_FILE, LlamaShape, config_json
from sparsejax.interop.llama_tensors import tensor_shapes

MASKS_FILE = "topology.safetensors"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(text: str) -> int:
    """Bytes of ``"5GB"``, ``"500MB"`` or a plain number; decimal units, as ``transformers`` counts them.

    Raises:
      ConfigError: something else, or no byte at all.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB|)", text.strip().upper())
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < 1:
        raise ConfigError(f"--shard-size={text}: must read 5GB, 500MB or a number of bytes")
    return size


def write_hf(directory: Path, model: ExportedModel, dtype: Dtype, shard_bytes: int) -> None:
    """Write tensors, ``config.json``, ``generation_config.json`` and, if anything is sparse, ``topology.safetensors``.

    Tensors go into files of at most ``shard_bytes``, in the order of the model; one that is larger gets its own. The
    same model, dtype and size always give the same bytes.
    """
    write_config(directory, model.shape, dtype)
    shards = _shards(tensor_shapes(model.shape), DTYPES[dtype].itemsize, shard_bytes)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else SINGLE_FILE
        # One metadata key: the library writes several in any order.
        save_file({name: model.stored(name, dtype) for name in names}, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        elements = sum(int(np.prod(sizes)) for sizes in tensor_shapes(model.shape).values())
        index = {"metadata": {"total_size": elements * DTYPES[dtype].itemsize}, "weight_map": weight_map}
        _write_json(directory / INDEX_FILE, index)
    if model.masks:
        save_file(dict(model.masks), directory / MASKS_FILE, metadata={"format": "pt"})


def write_config(directory: Path, shape: LlamaShape, dtype: Dtype) -> None:
    """Write ``config.json``, and ``generation_config.json`` with the ids of begin and end."""
    config = config_json(shape, dtype)
    _write_json(directory / CONFIG_FILE, config)
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id")}
    _write_json(directory / "generation_config.json", {"_from_model_config": True, **ids})


def _shards(shapes: Mapping[str, tuple[int, ...]], itemsize: int, most: int) -> list[list[str]]:
    """Names in order, a new list whenever the next tensor would bring one above ``most`` bytes."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, sizes in shapes.items():
        size = int(np.prod(sizes)) * itemsize
        if shards[-1] and filled + size > most:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
