"""An export, of either format, back as a model that can be exported again: byte for byte, or in the other format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors

from sparsejax.config import ConfigError
from sparsejax.files.json_records import read_record
from sparsejax.interop.exported_model import (
    DTYPES,
    FACTS_FILE,
    TOKENIZER_FILES,
    TRAIN_CONFIG,
    Dtype,
    ExportedModel,
    block_of,
)
from sparsejax.interop.facts import read_facts
from sparsejax.interop.hf_files import MASKS_FILE
from sparsejax.interop.llama_checkpoint import read_llama
from sparsejax.interop.llama_config import CONFIG_FILE, read_config
from sparsejax.interop.llama_tensors import LINEARS, layer_tensor, tensor_shapes
from sparsejax.interop.packed import PackedFileError, PackedModel
from sparsejax.interop.packed_file import PACKED_FILE


def is_export(directory: Path) -> bool:
    """Whether ``sparsejax export`` wrote the directory."""
    return (directory / FACTS_FILE).is_file()


def read_export(directory: Path) -> ExportedModel:
    """Open an export; tensors are read when they are asked for.

    Raises:
      ConfigError: a file of it is missing, broken, or does not belong to the others.
    """
    facts = read_facts(directory)
    files = {
        name: (directory / name).read_bytes()
        for name in (*TOKENIZER_FILES, TRAIN_CONFIG)
        if (directory / name).is_file()
    }
    if (directory / PACKED_FILE).is_file():
        packed = open_packed(directory / PACKED_FILE)
        masks = {name: packed.mask(name) for name in packed.sparse}
        shape = read_config(directory)
        if packed.config != read_record(directory / CONFIG_FILE, dict[str, Any], fix="export the run again"):
            raise ConfigError(f"{directory}: {PACKED_FILE} was written with another config.json; export the run again")
        return ExportedModel(shape, facts, masks, packed.tensor, files, cast(Dtype, packed.dtype))
    checkpoint = read_llama(directory)
    if checkpoint.dtype not in DTYPES:
        raise ConfigError(f"{directory}: holds {checkpoint.dtype} tensors, an export has {' or '.join(DTYPES)}")
    masks = read_masks(directory)
    dtype = cast(Dtype, checkpoint.dtype)
    return ExportedModel(checkpoint.shape, facts, masks, checkpoint.tensor, files, dtype)


def open_packed(path: Path) -> PackedModel:
    """A packed file, whose errors are ``ConfigError`` here."""
    try:
        return PackedModel(path)
    except PackedFileError as error:
        raise ConfigError(f"{error}; export the run again") from error


def read_masks(directory: Path) -> dict[str, np.ndarray]:
    """The block masks beside a dense export, bool ``[out / b_out, in / b_in]`` by tensor name; none for a dense model.

    Raises:
      ConfigError: the file is broken, or its masks do not fit the weights that ``config.json`` describes.
    """
    path = directory / MASKS_FILE
    if not path.is_file():
        return {}
    try:
        with safetensors.safe_open(path, framework="np") as file:
            masks = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"{path}: is no whole safetensors file ({error}); export the run again") from error
    shape = read_config(directory)
    shapes = tensor_shapes(shape)
    linears = {layer_tensor(layer, module) for layer in range(shape.layers) for module in LINEARS.values()}
    for name, mask in masks.items():
        fits = name in linears and mask.dtype == bool and mask.ndim == 2
        sizes = shapes[name] if fits else ()
        if not fits or tuple(np.multiply(block_of(sizes, mask), mask.shape)) != sizes:
            raise ConfigError(f"{path}: {name} is no block mask of a weight of config.json; export the run again")
    return masks
