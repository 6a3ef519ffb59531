"""Readers of plain text and JSON lines, compressed or not."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from pathlib import Path

from sparsejax.data.compression import opened
from sparsejax.data.foreign_text import (
    MAX_BYTES,
    FormatError,
    MissingField,
    NotText,
    check_size,
    decoded,
    not_utf8,
    text_of,
)
from sparsejax.files.text import one_line

# Characters. Plain text has no records, so it is cut at the first blank line after the first length,
# or at whatever line ends after the second.
_DOCUMENT_LENGTH = 16 * 1024
_LONGEST_DOCUMENT = 64 * 1024


def read_text(path: Path) -> Iterator[str]:
    """Plain text cut into documents of about 16 KB at blank lines; together they are the text, unchanged.

    A byte order mark at the beginning is no text.
    """
    pieces: list[str] = []
    length = lines = 0
    # newline="\n" hands lines over as they are; the default would rewrite \r\n.
    with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n") as text:
        try:
            while line := text.readline(_LONGEST_DOCUMENT):
                lines += 1
                pieces.append(line)
                length += len(line)
                if length >= _LONGEST_DOCUMENT or (length >= _DOCUMENT_LENGTH and not line.strip()):
                    yield "".join(pieces)
                    pieces, length = [], 0
        except UnicodeDecodeError as error:
            raise not_utf8(error, f"the text behind line {lines}" if lines else "the text") from None
    yield "".join(pieces)


def read_jsonl(path: Path, text_field: str) -> Iterator[str]:
    """The field ``text_field`` of the JSON object on every line that is not blank; empty where it is null."""
    number = 0
    with opened(path) as file:
        while line := file.readline(MAX_BYTES + 1):
            number += 1
            place = f"line {number}"
            check_size(len(line), place)
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            record = decoded(line, place)
            if record.strip():
                yield _field(record, text_field, place)


# Numbers are not looked at, so they may be of any length.
_NUMBER = NotText("a number")
_DECODER = json.JSONDecoder(
    parse_int=lambda digits: _NUMBER, parse_float=lambda digits: _NUMBER, parse_constant=lambda name: _NUMBER
)


def _field(record: str, text_field: str, place: str) -> str:
    try:
        found = _DECODER.decode(record)
    except json.JSONDecodeError as error:
        raise FormatError(f"{place} is not JSON ({one_line(error.msg)})") from error
    except RecursionError:
        raise FormatError(f"{place} is nested too deep") from None
    if not isinstance(found, dict):
        raise FormatError(f"{place} is not a JSON object")
    if text_field not in found:
        raise MissingField(place, found)
    return text_of(found[text_field], place)
