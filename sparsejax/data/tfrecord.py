"""A reader of TFRecord files, compressed or not: a row of records, each with its length and two checksums around it.

    uint64 length    uint32 checksum of the length    bytes of the record    uint32 checksum of the bytes

All are little-endian. A checksum is the CRC-32C ``c`` of its bytes, rotated and shifted by a constant:
``(c >> 15 | c << 17) + 0xa282ead8 mod 2^32`` (tensorflow.org, "TFRecord and tf.train.Example").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from sparsejax.data.compression import opened
from sparsejax.data.foreign_text import FormatError, check_size

_POLYNOMIAL = 0x82F63B78  # of CRC-32C, Castagnoli, bits reversed
_MASK_DELTA = 0xA282EAD8
_HEAD = struct.Struct("<QI")
_TAIL_BYTES = 4


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_TABLE = _crc_table()


def masked_crc(data: bytes) -> int:
    """The checksum of some bytes as TFRecord files hold it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a file; raises ``FormatError`` where it is not one, is cut short, or has too large a record.

    Checksums of lengths are checked, so that a file that is something else is found out at once. Those of records are
    not: in Python that would take about as long as to tokenise them.
    """
    # The length of a record may look like the beginning of a compressed file.
    with opened(path, is_plain=lambda head: _length(head[: _HEAD.size]) is not None) as file:
        place = 0
        while head := file.read(_HEAD.size):
            length = _length(head)
            if length is None:
                raise FormatError(f"no record begins at byte {place}")
            check_size(length, f"the record at byte {place}")
            record = file.read(length)
            if len(record) + len(file.read(_TAIL_BYTES)) != length + _TAIL_BYTES:
                raise FormatError(f"the record at byte {place} is cut short")
            yield record
            place += _HEAD.size + length + _TAIL_BYTES


def _length(head: bytes) -> int | None:
    """The length that the first bytes of a record state; ``None`` if their checksum is another one."""
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    return length if checksum == masked_crc(head[:8]) else None
