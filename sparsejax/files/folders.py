"""What a folder is that was named as a run, told from its files: so that the error says what would be needed."""

from __future__ import annotations

from typing import Any

import msgspec

from sparsejax.config import ConfigError
from sparsejax.files.json_records import read_record
from sparsejax.files.text import one_line

_WEIGHTS = ("*.safetensors", "*.bin", "*.pth", "*.gguf", "*.msgpack", "*.h5", "*.npz")
# A file that only one kind of folder has -> what that is, and what to do.
_KINDS = {
    "sparsejax.json": (
        "is an export, which 'generate', 'harness', 'export' and init.from take; name the run it was made of"
    ),
    "adapter_config.json": "is an adapter of the hub (LoRA); merge it into its model, and name that in init.from",
    "model.packed.safetensors": "is a packed export without its sparsejax.json; copy the whole folder",
    "snapshots": "is a folder of the hub's cache; name the folder in its snapshots/",
    "sweep.json": "is a sweep; name one of the runs in it",
    "fit.json": "is a fit; name a run, or give this to --fit",
}
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_meta.json", "tokenizer_config.json")


class _Config(msgspec.Struct):
    """What tells a ``config.json`` of the hub from that of a run."""

    model_type: Any = None
    architectures: Any = None


def no_run(folder: Any) -> str:
    """Say in one phrase what ``folder`` is, if it is no run, and what is needed instead.

    Args:
      folder: a ``Path`` of this machine or an ``epath.Path`` of a bucket.
    """
    if not folder.exists():
        return "there is no such folder; check the name, or start a run with 'sparsejax train'"
    if not folder.is_dir():
        return "is a file; name the folder of a run"
    for name, phrase in _KINDS.items():
        if (folder / name).exists():
            return phrase
    kind = hub_model_type(folder)
    if kind:
        return f"is a checkpoint of the hub (model_type={kind}), {_use_of(folder)}"
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "is empty; name the folder of a run, or start one with 'sparsejax train'"
    weights = weight_files(folder)
    if weights:
        return f"holds the weights {one_line(weights[0])} and no config.json; copy the files beside them too"
    if any(name in names for name in _TOKENIZER):
        return "is the folder of a tokenizer; name the folder that it lies in"
    runs = [name for name in names if (folder / name / "config.json").exists()]
    if runs:
        return f"has runs or models below it, such as {one_line(runs[0])}; name one of them"
    return "has no config.json; start a run with 'sparsejax train'"


def hub_model_type(folder: Any) -> str:
    """The architecture that a ``config.json`` of the hub names; empty if there is none, or it is no such file."""
    path = folder / "config.json"
    if not path.exists():
        return ""
    try:
        told = read_record(path, _Config, fix="")
    except ConfigError:
        return ""
    found = told.model_type or told.architectures
    return one_line(found, 40) if found else ""


def weight_files(folder: Any) -> list[str]:
    """Names of the files of weights in a folder, in any format."""
    return sorted({path.name for pattern in _WEIGHTS for path in folder.glob(pattern)})


def _use_of(folder: Any) -> str:
    if any(folder.glob("*.safetensors")):
        return "which 'generate', 'harness' and init.from take; name a run here"
    weights = weight_files(folder)
    if weights:
        return f"with {one_line(weights[0])} and no safetensors; save it again with safe_serialization=True"
    return "without its weights; copy its *.safetensors too"
