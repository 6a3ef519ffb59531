"""JSON that others may have written or damaged, decoded into typed records; JSON of our own, without NaN.

``msgspec`` checks types while it parses, bounds the depth and the digits, and says where a value is wrong.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from etils import epath

from sparsejax.config import ConfigError
from sparsejax.files.text import decode_text, one_line

T = TypeVar("T")

# Larger than any metadata file; a tokenizer of 1 M tokens takes 60 MB.
MAX_BYTES = 256 * 2**20
# ``write_rows`` and ``json_row`` put here what a number was that JSON does not have.
NOT_FINITE = "not_finite"
# ``sealed`` puts here the digest of the rest.
CHECK = "check"


def read_record(path: Any, kind: type[T], *, fix: str, max_bytes: int = MAX_BYTES) -> T:
    """Read a JSON file into ``kind``: a ``msgspec.Struct``, or types such as ``dict[str, int]``.

    Args:
      path: the file, on this machine or in a bucket (``Path``, ``epath.Path`` or ``str``).
      kind: what it must hold.
      fix: what the user can do if it does not, such as "restore it from a copy"; ends the line of the error.
      max_bytes: a larger file is refused unread.

    Raises:
      ConfigError: there is no such file, or it does not hold ``kind``.
      OSError: the storage failed.
    """
    path = epath.Path(path)
    if not path.exists() or path.is_dir():
        raise ConfigError(f"{one_line(path)}: there is no such file; {fix}")
    # Not by its stat: etils looks up the owner of a file by name, whom this machine may not know.
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ConfigError(f"{one_line(path)}: holds more than {max_bytes:,} bytes; {fix}")
    return decode_record(data, kind, name=path, fix=fix)


def decode_record(data: bytes, kind: type[T], *, name: object, fix: str) -> T:
    """Decode JSON bytes into ``kind``; see ``read_record``."""
    text = decode_text(data, name)
    return _checked(lambda: msgspec.json.decode(text, type=kind), name, fix)


def convert_record(value: Any, kind: type[T], *, name: object, fix: str) -> T:
    """A value that was decoded already, such as a part of a record, as ``kind``; raises as ``read_record``."""
    return _checked(lambda: msgspec.convert(value, kind), name, fix)


def _checked(decode: Callable[[], T], name: object, fix: str) -> T:
    try:
        return decode()
    except msgspec.ValidationError as error:
        problem = f"holds another value than it should ({error})"
    except msgspec.DecodeError as error:
        problem = f"is not JSON ({error})"
    except RecursionError:
        problem = "is nested too deep"
    raise ConfigError(f"{one_line(name)}: {one_line(problem)}; {fix}") from None


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a digest of itself under ``check``, by which ``unsealed`` finds one changed bit."""
    return {**document, CHECK: _digest(document)}


def unsealed(document: Mapping[str, Any], *, name: object, fix: str) -> dict[str, Any]:
    """The object without its digest; one from before there were digests is taken as it is.

    Raises:
      ConfigError: it is not what was written.
    """
    rest = {key: value for key, value in document.items() if key != CHECK}
    if CHECK in document and document[CHECK] != _digest(rest):
        raise ConfigError(f"{one_line(name)}: is not what was written, its digest differs; {fix}")
    return rest


def read_sealed(path: Any, kind: type[T], *, fix: str) -> T:
    """Read what ``sealed`` wrote into ``kind``; raises as ``read_record`` and ``unsealed``."""
    found = unsealed(read_record(path, dict[str, Any], fix=fix), name=path, fix=fix)
    return decode_record(json.dumps(found).encode(), kind, name=path, fix=fix)


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def json_row(row: Mapping[str, Any], *, indent: int | None = None, named: bool = False) -> str:
    """JSON, in one line by default; a number that is not finite becomes null, and ``not_finite`` says what it was.

    ``{"loss": nan}`` gives ``{"loss": null, "not_finite": {"loss": "nan"}}``.

    Args:
      row: what to write.
      indent: of the levels, each value then has a line.
      named: write by its name what JSON has no form for, such as a function; otherwise that is a ``TypeError``.
    """
    found: dict[str, str] = {}
    clean = {key: _finite(value, key, found) for key, value in row.items()}
    if found:
        clean[NOT_FINITE] = found
    return json.dumps(clean, allow_nan=False, indent=indent, default=str if named else None)


def _finite(value: Any, place: str, found: dict[str, str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        found[place] = str(value)
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item, f"{place}.{key}", found) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, f"{place}[{number}]", found) for number, item in enumerate(value)]
    return value
