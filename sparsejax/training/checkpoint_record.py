"""What a checkpoint says of itself: the config and the digests it was saved with.

Read from Orbax's file of metadata without Orbax, so that a run is held against its checkpoints before anything is
opened, and so that a damaged file is one line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sparsejax.config import ConfigError
from sparsejax.files.json_records import read_record
from sparsejax.files.text import one_line

FOLDER = "checkpoints"
_METADATA, _COMMITTED = "_CHECKPOINT_METADATA", "commit_success.txt"
_FIX = "restore it from a copy"
DIGESTS = ("data_digest", "tokenizer_digest", "start_digest")

Config = dict[str, dict[str, Any]]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is saved beside the arrays.

    Attributes:
      config: the resolved config.
      digest: integer digest of all bits of the state.
      steps: length of the run; 0 where it was not saved.
      data_digest, tokenizer_digest, start_digest: as ``config.json`` has them; empty where they were not saved.
      filled_epochs: as ``config.json`` has them.
      check: digest of the other fields; empty for checkpoints from before there was one.
    """

    config: Config
    digest: int
    steps: int = 0
    data_digest: str = ""
    tokenizer_digest: str = ""
    start_digest: str = ""
    filled_epochs: list[int] = []
    check: str = ""


class _Metadata(msgspec.Struct):
    custom_metadata: dict[str, Any]


def new_record(config: Config, digest: int, manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a record as JSON holds it.

    Args:
      config: the resolved config.
      digest: of the state.
      manifest: what ``config.json`` says, for its digests; None if there is none.
    """
    facts = {} if manifest is None else {name: manifest[name] for name in ("steps", "filled_epochs", *DIGESTS)}
    record: dict[str, Any] = msgspec.structs.asdict(Record(config=config, digest=digest, **facts))
    return record | {"check": content_check(record)}


def content_check(content: Mapping[str, Any]) -> str:
    """Digest of a JSON object without its ``check``: 16 hexadecimal digits that one changed bit changes."""
    rest = {name: value for name, value in content.items() if name != "check"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def steps_in(workdir: Any) -> list[int]:
    """Steps with a checkpoint, ascending; ``workdir`` is a run directory, ``Path`` or ``epath.Path``."""
    directory = workdir / FOLDER
    if not directory.is_dir():
        return []
    found = (entry for entry in directory.iterdir() if entry.name.isdecimal() and entry.name.isascii())
    # A directory of this machine gets its name when it is whole; in a bucket a file in it says so.
    whole = (entry for entry in found if isinstance(workdir, Path) or (entry / _COMMITTED).exists())
    return sorted(int(entry.name) for entry in whole)


def record_of(workdir: Any, step: int) -> Record:
    """The record of one checkpoint; raises ``ConfigError`` if it cannot be read or is not what was written."""
    path = workdir / FOLDER / str(step) / _METADATA
    written = read_record(path, _Metadata, fix=_FIX).custom_metadata
    try:
        record = msgspec.convert(written, Record)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: holds another value than it should ({one_line(error)}); {_FIX}") from None
    # Over what was written: another version may have other fields.
    if record.check and record.check != content_check(written):
        raise ConfigError(f"{path}: is not what was written; {_FIX}")
    return record


def readable_records(workdir: Any) -> Iterator[tuple[int, Record]]:
    """Yield step and record of every checkpoint whose record can be read, the newest first."""
    for step in reversed(steps_in(workdir)):
        try:
            record = record_of(workdir, step)
        except (ConfigError, OSError):
            # Restoring finds it broken, and says so.
            continue
        yield step, record
