"""CRC-32C (Castagnoli, RFC 3720), which TFRecord files hold: of a few bytes, and of many records at once.

The register ``r`` of a CRC takes a byte ``b`` by ``r -> table[(r ^ b) & 255] ^ r >> 8``. This is linear over bits: what
``r`` becomes behind a text is what it becomes behind as many zeros, xor what zero becomes behind the text. So a record
is cut into lanes, the lanes of all records take their bytes side by side in NumPy, and a table that passes over a lane
of zeros joins them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

_POLYNOMIAL = 0x82F63B78  # bits reversed
_ONES = 0xFFFFFFFF  # the register at first, and what it is xored with in the end
_LANE = 256  # bytes


def _byte_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _byte_table()


def crc32c(data: bytes) -> int:
    """The CRC-32C of a few bytes."""
    register = _ONES
    for byte in data:
        register = register >> 8 ^ _TABLE[(register ^ byte) & 0xFF]
    return register ^ _ONES


def crc32c_of_each(records: Sequence[bytes]) -> list[int]:
    """The CRC-32C of each of many records, some hundred MB a second."""
    lanes = [-(-len(record) // _LANE) for record in records]
    ends = np.cumsum(lanes, dtype=np.int64).tolist() if lanes else []
    flat = np.zeros(sum(lanes) * _LANE, np.uint8)
    for record, end in zip(records, ends, strict=True):
        # Zeros in front of the first byte change nothing in a register of zero.
        flat[end * _LANE - len(record) : end * _LANE] = np.frombuffer(record, np.uint8)
    table = np.array(_TABLE, np.uint32)
    registers = np.zeros(sum(lanes), np.uint32)
    for column in np.ascontiguousarray(flat.reshape(-1, _LANE).T):
        registers = table[(registers ^ column) & 0xFF] ^ registers >> 8
    found = registers.tolist()
    return [
        _joined(found[end - count : end], len(record) - (count - 1) * _LANE) ^ _ONES if count else 0
        for record, end, count in zip(records, ends, lanes, strict=True)
    ]


def _joined(lanes: list[int], first_bytes: int) -> int:
    """The register behind all lanes, of which the first has ``first_bytes`` bytes."""
    ones, (low, second, third, high) = _behind_zeros()
    register = ones[first_bytes] ^ lanes[0]
    for lane in lanes[1:]:
        register = (
            low[register & 0xFF]
            ^ second[register >> 8 & 0xFF]
            ^ third[register >> 16 & 0xFF]
            ^ high[register >> 24]
            ^ lane
        )
    return register


@functools.cache
def _behind_zeros() -> tuple[list[int], list[list[int]]]:
    """The first register behind 0 to 256 zeros; and any register behind a lane of zeros, byte for byte of it."""
    table = np.array(_TABLE, np.uint32)
    registers = np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    ones = [_ONES]
    for _ in range(_LANE):
        ones.append(ones[-1] >> 8 ^ _TABLE[ones[-1] & 0xFF])
        registers = table[registers & 0xFF] ^ registers >> 8
    return ones, registers.tolist()
