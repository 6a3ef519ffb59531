"""``sparsejax export``: a run, or an earlier export, into a directory that others can use."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal, cast

import jax

from sparsejax.config import ConfigError
from sparsejax.files.json_records import json_row
from sparsejax.files.outputs import Outputs
from sparsejax.files.places import Place
from sparsejax.interop.exported_model import DTYPES, FACTS_FILE, TRAIN_CONFIG, Dtype, ExportedModel
from sparsejax.interop.facts import FILES, file_digests
from sparsejax.interop.from_export import is_export, read_export
from sparsejax.interop.hf_files import write_config, write_hf
from sparsejax.interop.hf_tokenizer import tokenizer_files
from sparsejax.interop.llama_config import LlamaShape
from sparsejax.interop.llama_tensors import tensor_shapes
from sparsejax.interop.model_card import model_card, train_config
from sparsejax.interop.packed_file import write_packed
from sparsejax.interop.run_facts import run_facts
from sparsejax.interop.run_weights import RunWeights
from sparsejax.training.restore import TrainedRun, Weights, restore_run
from sparsejax.training.workdir import Notice, RunDirectory

Format = Literal["hf", "packed"]
FORMATS = ("hf", "packed")


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written: the number of bytes of all tensors, and those of the same model stored dense."""

    directory: Place
    bytes: int
    dense_bytes: int


def export(
    source: RunDirectory,
    out: object,
    *,
    form: Format,
    dtype: Dtype | None,
    shard_bytes: int,
    notice: Notice,
    weights: Weights = "raw",
    overwrite: bool = False,
) -> Exported:
    """Write a model into the new directory ``out``, whole or not at all.

    Args:
      source: a run directory, whose newest readable checkpoint is taken, or an earlier export of either format.
      out: path or URI of the new directory; it appears when everything is in it.
      form: ``"hf"`` for ``transformers``, ``"packed"`` for active blocks only.
      dtype: of the tensors; None keeps that of the source, which is float32 for a run.
      shard_bytes: size of a file of tensors at most (``hf`` only).
      notice: receives one line for whatever the user must know.
      weights: of a run, those trained last, or their moving average if it keeps one.
      overwrite: replace an earlier export.

    Raises:
      ConfigError: ``out`` exists or cannot be made, ``source`` is neither, or the model cannot be written this way.
    """
    target = Outputs(overwrite, [source]).tree("out", out, FACTS_FILE)
    again = isinstance(source, Path) and is_export(source)
    if again and weights != "raw":
        raise ConfigError(f"--weights={weights}: {source} is an export, which holds one model; export the run itself")
    model = read_export(cast(Path, source)) if again else from_run(source, notice, weights)
    if form == "packed" and model.facts["storage"] == "monarch":
        raise ConfigError(
            f"--format=packed: {source} has Monarch factors, which are no blocks of a matrix; use --format=hf"
        )
    stored = dtype or model.dtype
    if again and DTYPES[stored].itemsize > DTYPES[model.dtype].itemsize:
        raise ConfigError(f"--dtype={stored}: {source} was rounded to {model.dtype}; export the run itself")
    with target.filled() as directory:
        _write(directory, model, form, stored, shard_bytes)
        written = sum(path.stat().st_size for path in directory.glob("model*.safetensors"))
    return Exported(target.folder, written, _dense_bytes(model, stored))


def from_run(source: RunDirectory, notice: Notice, weights: Weights = "raw") -> ExportedModel:
    """The newest readable checkpoint of a run as an exported model.

    Raises:
      ConfigError: the directory holds no run, or one without a checkpoint or without an average of the weights.
    """
    trained = restore_run(source, notice, weights)
    params, topology = jax.device_get((trained.state.params, trained.state.topology))
    tensors = RunWeights(params, topology, trained.recipe.weights, trained.run.model.layers)
    masks = tensors.masks()
    facts = run_facts(source, trained, masks, weights)
    files = tokenizer_files(trained.tokenizer, trained.run.data.sequence_length, notice)
    files |= {TRAIN_CONFIG: train_config(facts).encode()}
    return ExportedModel(_shape(trained), facts, masks, tensors.tensor, files, "float32")


def _shape(trained: TrainedRun) -> LlamaShape:
    fields = {field.name for field in dataclasses.fields(LlamaShape)}
    told = {name: value for name, value in dataclasses.asdict(trained.run.model).items() if name in fields}
    return LlamaShape(
        **told
        | {
            "mlp": trained.recipe.shape.mlp,
            "vocab_size": trained.recipe.vocab_size,
            "longest": trained.run.data.sequence_length,
            "start_id": trained.tokenizer.start_id,
            "end_ids": (trained.tokenizer.end_id,),
        }
    )


def _write(directory: Path, model: ExportedModel, form: Format, dtype: Dtype, shard_bytes: int) -> None:
    if form == "hf":
        write_hf(directory, model, dtype, shard_bytes)
    else:
        write_packed(directory, model, dtype)
        write_config(directory, model.shape, dtype)
    for name, content in model.files.items():
        (directory / name).write_bytes(content)
    facts = {**model.facts, FILES: file_digests(directory)}
    (directory / FACTS_FILE).write_text(json_row(facts, indent=2) + "\n", encoding="utf-8")
    (directory / "README.md").write_text(model_card(model, form, dtype), encoding="utf-8")
    # safetensors writes files that only their owner can read.
    for path in directory.iterdir():
        path.chmod(0o644)


def _dense_bytes(model: ExportedModel, dtype: Dtype) -> int:
    elements = sum(math.prod(sizes) for sizes in tensor_shapes(model.shape).values())
    return elements * DTYPES[dtype].itemsize
