"""Readers of plain text and JSON lines, uncompressed, ``.gz`` or ``.xz``."""

from __future__ import annotations

import gzip
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

from sparsejax.config import ConfigError

# Characters. Plain text has no records, so it is cut at the first blank line after the first length,
# or at whatever line ends after the second.
_DOCUMENT_LENGTH = 16 * 1024
_LONGEST_DOCUMENT = 64 * 1024


class FormatError(ValueError):
    """A file is not what its format says; the text is the reason."""


def read_text(path: Path) -> Iterator[str]:
    """Plain text cut into documents of about 16 KB at blank lines; together they are the text, unchanged."""
    pieces: list[str] = []
    length = 0
    with _open(path) as file:
        for line in _lines(file):
            pieces.append(line)
            length += len(line)
            if length >= _LONGEST_DOCUMENT or (length >= _DOCUMENT_LENGTH and not line.strip()):
                yield "".join(pieces)
                pieces, length = [], 0
    yield "".join(pieces)


def read_jsonl(path: Path, text_field: str) -> Iterator[str]:
    """The field ``text_field`` of the JSON object on every line that is not blank."""
    with _open(path) as file:
        for number, line in enumerate(_lines(file, whole=True), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise FormatError(f"line {number} is not JSON ({error.msg})") from error
            if not isinstance(record, dict):
                raise FormatError(f"line {number} is not a JSON object")
            if not isinstance(record.get(text_field), str):
                raise missing_field(text_field, f"line {number} of {path}", record)
            # JSON can spell half of a surrogate pair, which no UTF-8 text contains.
            yield record[text_field].encode("utf-8", "replace").decode("utf-8")


def missing_field(text_field: str, place: str, present: object) -> ConfigError:
    """The error for a record without text; ``present`` is the collection of field names there are."""
    names = ", ".join(str(name) for name in list(cast(list[str], present))[:10])
    return ConfigError(f"data.text_field={text_field}: {place} has no text under that name; it has: {names}")


def _open(path: Path) -> TextIO:
    # newline="\n" hands lines over as they are; the default would rewrite \r\n.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="\n")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8", newline="\n")
    return path.open(encoding="utf-8", newline="\n")


def _lines(file: TextIO, whole: bool = False) -> Iterator[str]:
    limit = -1 if whole else _LONGEST_DOCUMENT
    try:
        while line := file.readline(limit):
            yield line
    except (UnicodeDecodeError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise FormatError(str(error)) from error
