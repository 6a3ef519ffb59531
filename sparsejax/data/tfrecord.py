"""A reader of TFRecord files, compressed or not: a row of records, each with its length and two checksums around it.

    uint64 length    uint32 checksum of the length    bytes of the record    uint32 checksum of the bytes

All are little-endian. A checksum is the CRC-32C ``c`` of its bytes, rotated and shifted by a constant:
``(c >> 15 | c << 17) + 0xa282ead8 mod 2^32`` (tensorflow.org, "TFRecord and tf.train.Example").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from sparsejax.data.compression import opened
from sparsejax.data.crc32c import crc32c, crc32c_of_each
from sparsejax.data.foreign_text import FormatError, check_size

_MASK_DELTA = 0xA282EAD8
_HEAD = struct.Struct("<QI")
_TAIL = struct.Struct("<I")
# Records are checked together until there are so many bytes or records.
_BATCH_BYTES = 2**21
_BATCH_RECORDS = 1024


class _Record(NamedTuple):
    place: int
    content: bytes
    checksum: int


def masked_crc(data: bytes) -> int:
    """The checksum of a few bytes as TFRecord files hold it."""
    return _masked(crc32c(data))


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a file; raises ``FormatError`` where it is not one, is damaged or cut short, or holds too much."""
    # The length of a record may look like the beginning of a compressed file.
    with opened(path, is_plain=lambda head: _length(head[: _HEAD.size]) is not None) as file:
        batch: list[_Record] = []
        size = 0
        for record in _unchecked(file):
            batch.append(record)
            size += len(record.content)
            if size >= _BATCH_BYTES or len(batch) >= _BATCH_RECORDS:
                yield from _checked(batch)
                batch, size = [], 0
        yield from _checked(batch)


def _unchecked(file: BinaryIO) -> Iterator[_Record]:
    place = 0
    while head := file.read(_HEAD.size):
        length = _length(head)
        if length is None:
            raise FormatError(f"no record begins at byte {place}")
        check_size(length, f"the record at byte {place}")
        content, tail = file.read(length), file.read(_TAIL.size)
        if len(content) + len(tail) != length + _TAIL.size:
            raise FormatError(f"the record at byte {place} is cut short")
        (checksum,) = _TAIL.unpack(tail)
        yield _Record(place, content, checksum)
        place += _HEAD.size + length + _TAIL.size


def _checked(records: list[_Record]) -> Iterator[bytes]:
    """The contents, up to the first one whose checksum is another."""
    for record, found in zip(records, crc32c_of_each([record.content for record in records]), strict=True):
        if _masked(found) != record.checksum:
            raise FormatError(f"the record at byte {record.place} is damaged: its checksum differs")
        yield record.content


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _length(head: bytes) -> int | None:
    """The length that the first bytes of a record state; ``None`` if their checksum is another one."""
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    return length if checksum == masked_crc(head[:8]) else None
