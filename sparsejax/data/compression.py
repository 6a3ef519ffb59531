"""Files that may be compressed: gzip, xz, zstd and bzip2, told by their first bytes and not by their names."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from sparsejax.data.foreign_text import FormatError
from sparsejax.files.text import one_line

_FIRST_BYTES = {
    b"\x1f\x8b\x08": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    # Parallel writers of zstd begin with a frame that readers skip.
    **{bytes([first]) + b"\x2a\x4d\x18": "zstd" for first in range(0x50, 0x60)},
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
    **{b"BZh%d\x17rE8P\x90" % level: "bzip2" for level in range(1, 10)},
}
_NOT_READ = {
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"\x1f\x9d": "compressed by compress (.Z)",
    b"\xff\x06\0\0sNaPpY": "compressed by snappy",
}
_SNIFFED = 16
_TAR_MARK, _TAR_PLACE = b"ustar", 257
_CHUNK = 1 << 16
# Bytes; the highest preset of xz needs 65 MiB. Frames of zstd that need more than 128 MiB are refused by its library.
_XZ_MEMORY = 2**29
_DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error)


@contextlib.contextmanager
def opened(path: Path, is_plain: Callable[[bytes], bool] = lambda head: False) -> Iterator[BinaryIO]:
    """Open a file whose bytes are decompressed as they are read.

    Args:
      path: a file of this machine.
      is_plain: tells from the first bytes that a file of the format is meant, whatever they look like otherwise.

    Raises:
      FormatError: it is an archive or compressed in a way that is not read; or, in the block, it is damaged.
    """
    with path.open("rb") as file, decompressed(file, is_plain) as stream:
        yield stream


@contextlib.contextmanager
def decompressed(file: BinaryIO, is_plain: Callable[[bytes], bool] = lambda head: False) -> Iterator[BinaryIO]:
    """As ``opened``, for an open file that can seek."""
    try:
        with io.BufferedReader(_stream_of(file, is_plain), _CHUNK) as stream:
            if stream.peek(1)[_TAR_PLACE:].startswith(_TAR_MARK):
                raise FormatError("is a tar archive; unpack it")
            yield cast(BinaryIO, stream)
    except _DAMAGE as error:
        raise FormatError(one_line(error)) from error


def compression_of(path: Path) -> str:
    """The name of what a file is compressed by; empty if it is not."""
    with path.open("rb") as file:
        return _matching(_FIRST_BYTES, file.read(_SNIFFED))


def _stream_of(file: BinaryIO, is_plain: Callable[[bytes], bool]) -> Any:
    head = file.read(_SNIFFED)
    file.seek(0)
    other = _matching(_NOT_READ, head)
    if is_plain(head):
        return file
    if other:
        raise FormatError(f"is {other}, which is not read; plain, gzip, xz, zstd and bzip2 are")
    match _matching(_FIRST_BYTES, head):
        case "gzip":
            return gzip.GzipFile(fileobj=file)
        case "xz":
            return _Streams(file, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
        case "bzip2":
            return _Streams(file, bz2.BZ2Decompressor)
        case "zstd":
            import pyarrow

            return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")
    return file


def _matching(kinds: dict[bytes, str], head: bytes) -> str:
    return next((kind for first, kind in kinds.items() if head.startswith(first)), "")


class _Streams(io.RawIOBase):
    """The compressed streams of a file, one after another; ``lzma`` and ``bz2`` pass over a second one with damage."""

    def __init__(self, file: BinaryIO, new: Callable[[], Any]) -> None:
        self._file, self._new = file, new
        self._stream = new()
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills some of ``buffer``; 0 at the end of the last stream."""
        while True:
            if self._stream.eof and not self._next_stream():
                return 0
            data = b""
            if self._stream.needs_input:
                data, self._waiting = self._waiting or self._file.read(_CHUNK), b""
                if not data:
                    raise EOFError("it is cut short: the compressed stream has no end")
            out = self._stream.decompress(data, len(buffer))
            if out:
                buffer[: len(out)] = out
                return len(out)

    def _next_stream(self) -> bool:
        """Begins the next stream; False if none follows, or only zeros that fill the file up."""
        waiting = self._stream.unused_data or self._file.read(_CHUNK)
        if waiting.startswith(b"\0"):
            # Once, what stood behind zeros was passed over. It is refused, so that no file gives two texts.
            while waiting and not waiting.strip(b"\0"):
                waiting = self._file.read(_CHUNK)
            if waiting:
                raise EOFError("something stands behind the zeros at the end of its compressed stream")
        if waiting:
            self._waiting, self._stream = waiting, self._new()
        return bool(waiting)
