"""How an exported model came to be: everything that its model card says, read from the run directory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from sparsejax import __version__
from sparsejax.files.json_records import read_sealed
from sparsejax.interop.exported_model import FACTS_SCHEMA
from sparsejax.interop.llama_tensors import LINEARS, layer_tensor
from sparsejax.models.accounting import WeightCount, dense_weights, parameters, theoretical_flops
from sparsejax.models.shapes import DecoderShape
from sparsejax.training.metrics import read_rows
from sparsejax.training.provenance import git_commit
from sparsejax.training.restore import TrainedRun, Weights
from sparsejax.training.workdir import RunDirectory, read_manifest

_Record = TypeVar("_Record")


class _Result(msgspec.Struct):
    """What is read of ``result.json``; null stands for a number that was not finite."""

    steps: int
    train_loss: float | None
    validation_loss: float | None
    bits_per_byte: float | None
    total_tokens: int
    unique_tokens: int
    epochs: float
    executed_flops: float
    theoretical_flops: float
    device: str
    versions: dict[str, str]


class _Average(msgspec.Struct):
    loss: float | None
    bits_per_byte: float | None


class _Soup(msgspec.Struct):
    """What is read of ``average.json``."""

    ingredients: list[str]
    shares: list[float]
    average: _Average


def run_facts(
    workdir: RunDirectory, trained: TrainedRun, masks: Mapping[str, np.ndarray], weights: Weights
) -> dict[str, Any]:
    """Facts of a run, ready for JSON; docs/EXPORT.md lists them.

    Losses, tokens and FLOPs of the training are those of ``result.json`` if the exported step is the one it was
    written after, else those of the log up to that step, where there are any.

    Raises:
      ConfigError: ``result.json`` or ``average.json`` is there and cannot be read.
    """
    run, recipe, manifest = trained.run, trained.recipe, read_manifest(workdir)
    assert manifest is not None
    step = int(trained.state.step)
    counted = [weight.counted for weight in recipe.weights.values()]
    count = parameters(recipe.shape, counted)
    length = run.data.sequence_length
    return {
        "schema": FACTS_SCHEMA,
        "name": workdir.resolve().name,
        "size": run.model.size,
        "method": run.topology.method,
        "storage": run.topology.storage,
        "block": list(run.topology.block),
        "density_requested": run.topology.density,
        "density": count.density,
        "weights": _density_table(recipe.shape, counted, masks),
        "parameters": {
            "total": count.total,
            "active": count.active,
            "active_non_embedding": count.active_non_embedding,
        },
        "exported_weights": weights,
        "step": step,
        "steps": manifest["steps"],
        "data": {
            "source": run.data.source,
            "path": run.data.path,
            "digest": manifest["data_digest"],
            "tokenizer": run.data.tokenizer,
            "tokenizer_digest": manifest["tokenizer_digest"],
            "sequence_length": length,
        },
        "flops_per_token": {
            "theoretical": theoretical_flops(recipe.shape, counted, length).forward,
            "dense": theoretical_flops(recipe.shape, dense_weights(recipe.shape), length).forward,
        },
        **_training(workdir, trained, step),
        "started_from": manifest["start_digest"],
        "trained_by": {"git_commits": manifest["git_commits"]},
        "exported_by": {"sparsejax": __version__, "git_commit": git_commit()},
        "config": run.to_dict(),
    }


def _density_table(
    shape: DecoderShape, counted: list[WeightCount], masks: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """For every kind ``[in, out]`` and block of one matrix, active blocks of each layer, and the density over them."""
    table: dict[str, dict[str, Any]] = {}
    for weight in counted:
        names = [layer_tensor(layer, LINEARS[weight.name]) for layer in range(shape.layers)]
        active = [int(masks[name].sum()) for name in names if name in masks]
        places = weight.cells * shape.layers
        # Without a mask the matrix is full, whatever made it: a plain kernel, or a product of factors.
        density = sum(active) / places if active else 1.0
        table[weight.name] = {
            "shape": list(weight.shape),
            "block": list(weight.block) if active else None,
            "places": weight.cells if active else None,
            "active": active if active else None,
            "density": density,
            "parameters": weight.active * shape.layers,
            "storage": weight.storage,
        }
    return table


def _training(workdir: RunDirectory, trained: TrainedRun, step: int) -> dict[str, Any]:
    """Tokens, losses, FLOPs and versions, as far as the run directory knows them for this step."""
    run = trained.run
    told = _read(workdir / "result.json", _Result)
    result = told if told is not None and told.steps == step else None
    rows = [row for row in read_rows(workdir / "metrics.jsonl") if row["step"] <= step]
    train = [row for row in rows if row["kind"] == "train"]
    evals = [row for row in rows if row["kind"] == "eval"]
    tokens = step * run.train.batch_size * run.data.sequence_length
    soup = _read(workdir / "average.json", _Soup)
    if soup is not None:
        losses = {"train": None, "validation": soup.average.loss}
        losses |= {"bits_per_byte": soup.average.bits_per_byte, "step": step}
    elif result is not None:
        losses = {"train": result.train_loss, "validation": result.validation_loss}
        losses |= {"bits_per_byte": result.bits_per_byte, "step": step}
    else:
        last = evals[-1] if evals else {"loss": None, "bits_per_byte": None, "step": None}
        losses = {"train": train[-1]["loss_mean"] if train else None, "validation": last["loss"]}
        losses |= {"bits_per_byte": last["bits_per_byte"], "step": last["step"]}
    return {
        "finished": result is not None or soup is not None,
        "tokens": {
            "seen": result.total_tokens if result else tokens,
            "unique": result.unique_tokens if result else run.data.unique_tokens or None,
            "epochs": result.epochs if result else train[-1]["epoch"] if train else None,
        },
        # As in result.json: a loss that is not a number is none.
        "losses": {name: value if value is None or math.isfinite(value) else None for name, value in losses.items()},
        "training_flops": {
            "executed": result.executed_flops if result else None,
            "theoretical": result.theoretical_flops if result else None,
        },
        "device": result.device if result else None,
        "versions": result.versions if result else None,
        "average_of": dict(zip(soup.ingredients, soup.shares, strict=True)) if soup is not None else None,
    }


def _read(path: RunDirectory, kind: type[_Record]) -> _Record | None:
    return read_sealed(path, kind, fix="restore it from a copy") if path.exists() else None
