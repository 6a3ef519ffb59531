"""Records of stored tokens that hold a digest of themselves, so that one changed bit is found."""

from __future__ import annotations

import hashlib
import json
from typing import TypeVar

import msgspec

from sparsejax.config import ConfigError
from sparsejax.files.json_records import decode_record
from sparsejax.files.text import one_line


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A record.

    Attributes:
      check: digest of the other fields; empty in files of before there was one.
    """

    check: str = ""


S = TypeVar("S", bound=Sealed)


def sealed_json(record: Sealed) -> bytes:
    """The content of a JSON file that people may read, with its ``check``."""
    sealed = msgspec.structs.replace(record, check=_digest(record))
    return json.dumps(msgspec.to_builtins(sealed), indent=1).encode() + b"\n"


def read_sealed(content: bytes, kind: type[S], *, name: object, fix: str) -> S:
    """Reads a record back; raises ``ConfigError`` if it is another kind, or another than was written."""
    record = decode_record(content, kind, name=name, fix=fix)
    if record.check and record.check != _digest(record):
        raise ConfigError(f"{one_line(name)}: is not what was written, its digest differs; {fix}")
    return record


def _digest(record: Sealed) -> str:
    fields = msgspec.to_builtins(record) | {"check": ""}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
