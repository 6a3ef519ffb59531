"""Writes a packed model, the file that ``packed.PackedModel`` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from sparsejax.files.json_records import json_row
from sparsejax.interop.exported_model import Dtype, ExportedModel, block_of, cut
from sparsejax.interop.llama_config import config_json
from sparsejax.interop.llama_tensors import tensor_shapes
from sparsejax.interop.packed import FORMAT, MASK, METADATA_KEY, VALUES, file_digest

PACKED_FILE = "model.packed.safetensors"


def write_packed(directory: Path, model: ExportedModel, dtype: Dtype) -> None:
    """Write ``model.packed.safetensors``: dense tensors as they are, of sparse ones active blocks and a bit a place.

    The same model and dtype always give the same bytes.
    """
    tensors: dict[str, np.ndarray] = {}
    sparse: dict[str, dict[str, list[int]]] = {}
    for name, sizes in tensor_shapes(model.shape).items():
        array = model.stored(name, dtype)
        if name not in model.masks:
            tensors[name] = array
            continue
        mask = model.masks[name]
        tensors[name + VALUES] = cut(array, mask)
        tensors[name + MASK] = np.packbits(mask)
        sparse[name] = {"shape": list(sizes), "block": list(block_of(sizes, mask))}
    metadata = {
        "format": FORMAT,
        "digest": "0" * 64,
        "dtype": dtype,
        "config": config_json(model.shape, dtype),
        "sparse": sparse,
        "facts": dict(model.facts),
    }
    path = directory / PACKED_FILE
    save_file(tensors, path, metadata={METADATA_KEY: json_row(metadata)})
    _sign(path, metadata)


def _sign(path: Path, metadata: dict[str, Any]) -> None:
    """Put the digest of the file in place of its zeros."""
    zeros = str(metadata["digest"])
    digest = file_digest(path, zeros)
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        place = file.read(length).index(zeros.encode())
        file.seek(8 + place)
        file.write(digest.encode())
