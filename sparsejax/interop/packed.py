"""Reads a packed model: one safetensors file that holds active blocks only (docs/EXPORT.md, section Packed).

Needs NumPy and safetensors and nothing else of this project, so the file can be copied into any other.

    model = PackedModel("export/model.packed.safetensors")
    model.names                       # the tensors of a Hugging Face LLaMA checkpoint
    model.tensor(name)                # one of them, dense, float32
    model.blocks(name)                # a sparse one as it is stored: active blocks and where they are
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

FORMAT = "sparsejax packed 1"
# The one key of the file's own metadata, JSON; several keys would be written in any order.
METADATA_KEY = "sparsejax"
VALUES, MASK = ".values", ".mask"
_NO_DIGEST = b"0" * 64
_DIGEST = re.compile("[0-9a-f]{64}")
_CHUNK = 1 << 24
_DTYPES: dict[str, np.dtype] = {"F32": np.dtype("<f4"), "BF16": np.dtype("<u2"), "U8": np.dtype("u1")}


class PackedFileError(ValueError):
    """The file is not a whole packed model; one line that says what is wrong."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """A sparse weight ``[out, in]``: ``y = x W^T``, as everywhere in Hugging Face's layout.

    Attributes:
      shape: ``(out, in)``.
      values: active blocks, float32 ``[n, b_out, b_in]``, ordered by (row, column) of their place.
      rows, columns: places of the blocks, int64 ``[n]``, in blocks: the block i covers the outputs from
        ``rows[i] * b_out`` and the inputs from ``columns[i] * b_in``.
    """

    shape: tuple[int, int]
    values: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def dense(self) -> np.ndarray:
        """The matrix ``[out, in]``, 0.0 outside the blocks."""
        _, height, width = self.values.shape
        cells = np.zeros((self.shape[0] // height, self.shape[1] // width, height, width), np.float32)
        cells[self.rows, self.columns] = self.values
        return cells.transpose(0, 2, 1, 3).reshape(self.shape)


class PackedModel:
    """An opened file. Tensors are read from the disk when they are asked for.

    Attributes:
      config: what ``config.json`` of the dense export says.
      facts: how the model came to be: density, method, tokens, losses, the configuration of the run.
      sparse: the weights that are stored as blocks: name -> ``{"shape": [out, in], "block": [b_out, b_in]}``.
      dtype: of the stored values, ``"float32"`` or ``"bfloat16"``; what is read is float32 either way.
    """

    config: dict[str, Any]
    facts: dict[str, Any]
    sparse: dict[str, dict[str, list[int]]]
    dtype: str

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True) -> None:
        """Open a file, and unless told otherwise read it once to compare its digest.

        Raises:
          PackedFileError: it is absent, cut off, changed, or something else.
        """
        self._path = Path(path)
        if self._path.is_dir():
            raise PackedFileError(f"{path}: is a folder; name the packed file in it")
        try:
            with safe_open(self._path, framework="np") as file:
                told = file.metadata()
        except (OSError, SafetensorError) as error:
            raise PackedFileError(f"{path}: is no whole safetensors file ({error})") from error
        if told is None or METADATA_KEY not in told:
            raise PackedFileError(f"{path}: is a safetensors file, but no packed model of sparsejax")
        try:
            metadata = json.loads(told[METADATA_KEY])
            form, digest = metadata["format"], metadata["digest"]
            self.config, self.facts, self.sparse = metadata["config"], metadata["facts"], metadata["sparse"]
            self.dtype = metadata["dtype"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise PackedFileError(f"{path}: its metadata cannot be read ({type(error).__name__})") from error
        if form != FORMAT:
            raise PackedFileError(f"{path}: is of format {form!r}, this reads {FORMAT!r}")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise PackedFileError(f"{path}: its digest is none")
        if verify and file_digest(self._path, digest) != digest:
            raise PackedFileError(f"{path}: its bytes are not those that were written (the digest differs)")
        self._entries, self._start = _header(self._path)
        wrong = self._wrong()
        if wrong:
            raise PackedFileError(f"{path}: {wrong}, so its parts do not belong together")

    def _wrong(self) -> str:
        """The first part that does not fit the others, in a phrase; empty if all do."""
        for name, entry in self._entries.items():
            if entry["dtype"] not in _DTYPES:
                return f"{name!r} is of type {entry['dtype']!r}"
        if not all(isinstance(part, dict) for part in (self.config, self.facts, self.sparse)):
            return "its metadata is no table"
        for name, told in self.sparse.items():
            pairs = [told[key] if isinstance(told, dict) and key in told else None for key in ("shape", "block")]
            if not all(isinstance(pair, list) and [type(n) for n in pair] == [int, int] for pair in pairs):
                return f"{name!r} has no shape and block"
            (outputs, inputs), (height, width) = told["shape"], told["block"]
            if min(outputs, inputs, height, width) < 1 or outputs % height or inputs % width:
                return f"{name!r} has blocks that do not divide it"
            if name + VALUES not in self._entries or name + MASK not in self._entries:
                return f"{name!r} has no values or no mask"
            cells, mask = (outputs // height) * (inputs // width), self._entries[name + MASK]
            if mask["dtype"] != "U8" or mask["shape"] != [-(-cells // 8)]:
                return f"{name!r} has a mask of another size"
            if self._entries[name + VALUES]["shape"] != [int(self.mask(name).sum()), height, width]:
                return f"{name!r} has another number of blocks than its mask"
        return ""

    @property
    def names(self) -> list[str]:
        """Names of all tensors of the model, sparse ones without their suffix."""
        plain = [name for name in self._entries if name.removesuffix(VALUES).removesuffix(MASK) not in self.sparse]
        return sorted([*plain, *self.sparse])

    def tensor(self, name: str) -> np.ndarray:
        """A tensor of the dense model, float32; bit for bit what was exported, if ``dtype`` is float32.

        Raises:
          KeyError: there is none of that name.
        """
        return self.blocks(name).dense() if name in self.sparse else self._read(name)

    def blocks(self, name: str) -> Blocks:
        """A sparse weight as it is stored.

        Raises:
          KeyError: there is none of that name, or it is not sparse.
        """
        shape, mask = self.sparse[name]["shape"], self.mask(name)
        rows, columns = np.nonzero(mask)
        return Blocks((shape[0], shape[1]), self._read(name + VALUES), rows, columns)

    def mask(self, name: str) -> np.ndarray:
        """Which blocks of a sparse weight are active, bool ``[out / b_out, in / b_in]``; ``KeyError`` as ``blocks``."""
        (outputs, inputs), (height, width) = self.sparse[name]["shape"], self.sparse[name]["block"]
        rows, columns = outputs // height, inputs // width
        bits = np.unpackbits(self._read(name + MASK), count=rows * columns)
        return bits.reshape(rows, columns).astype(bool)

    def state_dict(self) -> dict[str, np.ndarray]:
        """All tensors, dense, float32."""
        return {name: self.tensor(name) for name in self.names}

    def stored_bytes(self, name: str) -> int:
        """Bytes that a tensor takes in the file, the mask of a sparse one included."""
        parts = [name + VALUES, name + MASK] if name in self.sparse else [name]
        return sum(end - begin for begin, end in (self._entries[part]["data_offsets"] for part in parts))

    def _read(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        begin, end = entry["data_offsets"]
        dtype = _DTYPES[entry["dtype"]]
        raw: np.ndarray = np.fromfile(self._path, dtype, (end - begin) // dtype.itemsize, offset=self._start + begin)
        # The upper half of a float32: NumPy has no bfloat16 of its own.
        wide = (raw.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else raw
        return wide.reshape(entry["shape"])


def file_digest(path: Path, digest: str) -> str:
    """Hexadecimal sha256 of a file in which the 64 digits of ``digest`` are zeros: so a file can hold its own."""
    (length,) = np.fromfile(path, "<u8", 1)
    found = hashlib.sha256()
    with path.open("rb") as file:
        found.update(file.read(8 + int(length)).replace(digest.encode(), _NO_DIGEST, 1))
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _header(path: Path) -> tuple[Mapping[str, Any], int]:
    """Dtype, shape and place of every tensor, and where in the file the places start to count."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}, 8 + length
