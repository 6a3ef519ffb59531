"""``sparsejax.json`` of an export: how the model came to be, as types, and the digests of the files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from sparsejax.config import ConfigError
from sparsejax.data.cache import file_sha256
from sparsejax.files.json_records import read_record
from sparsejax.files.names import confined
from sparsejax.files.text import one_line
from sparsejax.interop.exported_model import FACTS_FILE, FACTS_SCHEMA, TOKENIZER_FILES
from sparsejax.interop.llama_config import CONFIG_FILE, GENERATION_FILE

# The key of the digests: name of a file -> hexadecimal sha256. Exports from before there were digests have none.
FILES = "files"
_TENSORS = "*.safetensors*"
_FIX = "export the run again"


class _Weight(msgspec.Struct):
    shape: tuple[int, int]
    block: tuple[int, int] | None
    places: int | None
    active: list[int] | None
    density: float
    parameters: int
    storage: str


class _Parameters(msgspec.Struct):
    total: int
    active: int
    active_non_embedding: int


class _Data(msgspec.Struct):
    source: str
    path: str
    digest: str
    tokenizer: str
    tokenizer_digest: str
    sequence_length: int


class _TokenFlops(msgspec.Struct):
    theoretical: float
    dense: float


class _TrainingFlops(msgspec.Struct):
    executed: float | None
    theoretical: float | None


class _Tokens(msgspec.Struct):
    seen: int
    unique: int | None
    epochs: float | None


class _Losses(msgspec.Struct):
    train: float | None
    validation: float | None
    bits_per_byte: float | None
    step: int | None


class _Trained(msgspec.Struct):
    git_commits: list[str]


class _Exported(msgspec.Struct):
    sparsejax: str
    git_commit: str


class _Start(msgspec.Struct):
    source: str = msgspec.field(name="from")


class _Train(msgspec.Struct):
    batch_size: int


class _Optim(msgspec.Struct):
    lr: float
    schedule: str
    ema_decay: float = 0.0


class _Config(msgspec.Struct):
    init: _Start
    train: _Train
    optim: _Optim
    seeds: dict[str, int]


class _Facts(msgspec.Struct):
    """Everything of ``sparsejax.json`` that a model card is written from."""

    schema: int
    name: str
    size: str
    method: str
    storage: Literal["packed", "dense_master", "monarch"]
    block: tuple[int, int]
    density_requested: float
    density: float
    weights: dict[str, _Weight]
    parameters: _Parameters
    exported_weights: str
    step: int
    steps: int
    data: _Data
    flops_per_token: _TokenFlops
    finished: bool
    tokens: _Tokens
    losses: _Losses
    training_flops: _TrainingFlops
    device: str | None
    versions: dict[str, str] | None
    average_of: dict[str, float] | None
    started_from: str
    trained_by: _Trained
    exported_by: _Exported
    config: _Config
    files: dict[str, str] = {}


class _Schema(msgspec.Struct):
    schema: int = 0


def read_facts(directory: Path) -> dict[str, Any]:
    """What ``sparsejax.json`` says, without the digests, against which the files of the directory are held.

    Raises:
      ConfigError: it is broken or of another version, or a file was changed, is missing or is not of this export.
    """
    path = directory / FACTS_FILE
    if read_record(path, _Schema, fix=_FIX).schema != FACTS_SCHEMA:
        raise ConfigError(f"{path}: was written by another version of sparsejax; {_FIX}")
    typed = read_record(path, _Facts, fix=_FIX)
    _check_digests(directory, typed.files)
    facts = read_record(path, dict[str, Any], fix=_FIX)
    return {key: value for key, value in facts.items() if key != FILES}


def file_digests(directory: Path) -> dict[str, str]:
    """The sha256 of every file that decides what an exported model computes: tensors, configuration, tokenizer."""
    return {name: file_sha256(directory / name) for name in _deciding(directory)}


def _deciding(directory: Path) -> list[str]:
    tensors = [path.name for path in directory.glob(_TENSORS)]
    others = [name for name in (CONFIG_FILE, GENERATION_FILE, *TOKENIZER_FILES) if (directory / name).is_file()]
    return sorted([*tensors, *others])


def _check_digests(directory: Path, told: Mapping[str, str]) -> None:
    if not told:
        return
    facts = directory / FACTS_FILE
    for name, digest in told.items():
        path = confined(directory, name, named_in=facts, links=True)
        if not path.is_file():
            raise ConfigError(f"{directory}: lacks {one_line(name)}, which {FACTS_FILE} names; copy it too")
        if file_sha256(path) != digest:
            raise ConfigError(f"{path}: was changed since it was exported (its digest differs); restore it, or {_FIX}")
    strange = [name for name in _deciding(directory) if name not in told]
    if strange:
        raise ConfigError(f"{directory}: {one_line(strange[0])} is not of this export; take it away, or {_FIX}")
