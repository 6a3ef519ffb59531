"""What every export format writes: a LLaMA decoder in Hugging Face's layout, and where its active blocks are.

Weights are ``[out, in]`` here, as in the files; a block of this project's ``(bk, bn)`` of ``[in, out]`` is then
``(bn, bk)``. Going through the block mask row by row is then the storage order of one share, (column, row).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import ml_dtypes
import numpy as np

from sparsejax.config import ConfigError
from sparsejax.interop.llama_config import LlamaShape

Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[str, np.dtype] = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

# Files that an export of an export takes over as they are.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer_meta.json", "tokenizer.model")
TRAIN_CONFIG = "train_config.py"
FACTS_FILE = "sparsejax.json"
# Of what ``FACTS_FILE`` holds.
FACTS_SCHEMA = 2


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """A model on its way into files.

    Attributes:
      shape: the decoder.
      facts: how it came to be, ready for JSON; see ``run_facts``.
      masks: for every sparse weight, by tensor name, which blocks are active: bool ``[out / b_out, in / b_in]``.
      tensor: a tensor by its name in ``llama_tensors.tensor_shapes``, float32; 0.0 outside active blocks.
      files: other files by name: tokenizer, and the configuration of the run.
      dtype: what its tensors were stored as; ``"float32"`` for a run.
    """

    shape: LlamaShape
    facts: Mapping[str, Any]
    masks: Mapping[str, np.ndarray]
    tensor: Callable[[str], np.ndarray]
    files: Mapping[str, bytes]
    dtype: Dtype

    def stored(self, name: str, dtype: Dtype) -> np.ndarray:
        """A tensor as it is written: contiguous, rounded to nearest even where ``dtype`` is narrower.

        Raises:
          ConfigError: a value is not a finite number, or becomes infinite in ``dtype``.
        """
        tensor = self.tensor(name)
        check_finite(tensor, name, "export an earlier checkpoint")
        # The largest numbers of float32 are above those of bfloat16: what becomes infinite is refused below.
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(tensor.astype(DTYPES[dtype]))
        if DTYPES[dtype] != tensor.dtype:
            check_finite(stored, f"{name} as {dtype}", "export it as float32")
        return stored


def check_finite(array: np.ndarray, name: str, fix: str) -> None:
    """Raise ``ConfigError`` if a tensor holds a value that is not a number, or infinite."""
    # A sum is not finite if a part of it is not; it may overflow too, so that is looked at closely.
    with np.errstate(over="ignore", invalid="ignore"):
        whole = np.isfinite(np.sum(array, dtype=np.float64))
    if not whole and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ConfigError(f"{name} has {count:,} of {array.size:,} values that are not finite numbers; {fix}")


def block_of(weight_shape: tuple[int, ...], mask: np.ndarray) -> tuple[int, int]:
    """Height and width of the blocks of a weight ``[out, in]`` with this mask."""
    return weight_shape[0] // mask.shape[0], weight_shape[1] // mask.shape[1]


def cut(weight: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The active blocks of ``weight [out, in]``, ``[n, b_out, b_in]``, in the row-by-row order of ``mask``."""
    (height, width), (rows, columns) = block_of(weight.shape, mask), mask.shape
    cells = weight.reshape(rows, height, columns, width).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cells[mask])
