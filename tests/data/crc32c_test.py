"""The checksum of TFRecord files."""

import random

from sparsejax.data.crc32c import crc32c, crc32c_of_each
from sparsejax.data.tfrecord import masked_crc


def test_check_values() -> None:
    # Of every catalogue of checksums, and of RFC 3720, appendix B.4.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43 and crc32c(b"") == 0
    assert masked_crc(b"") == 0xA282EAD8
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


def test_many_records_at_once() -> None:
    draw = random.Random(0)
    sizes = [0, 1, 2, 255, 256, 257, 511, 512, 513, 3000, 0, *(draw.randrange(900) for _ in range(100))]
    records = [draw.randbytes(size) for size in sizes]
    assert crc32c_of_each(records) == [crc32c(record) for record in records]
    assert crc32c_of_each([]) == []
