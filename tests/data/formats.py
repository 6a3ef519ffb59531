"""Files of every format from the same values, for tests that hold all formats to one rule."""

import bz2
import gzip
import io
import json
import lzma
import struct
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests
from sparsejax.data.paths import PathSetting
from sparsejax.data.sources import make_source
from sparsejax.data.tfrecord import masked_crc
from tests.data.conftest import proto_field

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
}
# Formats that are read from the beginning to the end, so that they may be compressed as a whole.
STREAMS = ("text", "jsonl", "tfrecord")
FILES = ("text", "jsonl", "parquet", "arrayrecord", "tfrecord")
RECORDS = ("jsonl", "parquet", "arrayrecord", "tfrecord", "hf")


def content_of(kind: str, values: Sequence[Any], field: str = "text") -> bytes:
    """A file of a format: each value is text, bytes that stand for text, ``None``, a number or a list of texts."""
    if kind == "text":
        return b"\n\n".join(_bytes(value) for value in values)
    if kind == "jsonl":
        return b"".join(b'{"url": "x", "%s": %s}\n' % (field.encode(), _json(value)) for value in values)
    if kind == "parquet":
        sink = io.BytesIO()
        table = pyarrow.table({"url": ["x"] * len(values), field: _column(values)})
        pyarrow.parquet.write_table(table, sink, write_page_checksum=True)
        return sink.getvalue()
    records = [example(field, value) for value in values]
    return tfrecord(records) if kind == "tfrecord" else array_record(records)


def read(kind: str, path: object, directory: Path, field: str = "text") -> list[str] | str:
    """The texts of a corpus, or the line that refuses it; nothing else may happen."""
    try:
        source = make_source(kind, PathSetting("data.path", str(path)), field, FileDigests(directory / "digests"))
        found = [document.text for document in source.documents()]
        assert source.content_digest() == source.content_digest()
        return found
    except ConfigError as error:
        line = str(error)
        assert line.isprintable(), line
        assert kind == "hf" or Path(str(path)).name in line or not Path(str(path)).name.isprintable(), line
        return line


def tfrecord(records: Sequence[bytes]) -> bytes:
    """A TFRecord file."""
    parts = [part for record in records for part in (struct.pack("<Q", len(record)), record)]
    return b"".join(part + struct.pack("<I", masked_crc(part)) for part in parts)


def array_record(records: Sequence[bytes]) -> bytes:
    """An ArrayRecord file."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "file")
        writer = ArrayRecordWriter(str(path), "group_size:4")
        for record in records:
            writer.write(record)
        writer.close()
        return path.read_bytes()


def example(field: str, value: Any) -> bytes:
    """A serialised ``tf.train.Example`` of one feature and another one."""
    if isinstance(value, int):
        feature = proto_field(3, bytes([8, value]))
    else:
        values = value if isinstance(value, list) else [] if value is None else [value]
        feature = proto_field(1, b"".join(proto_field(1, _bytes(text)) for text in values))
    entries = [(b"url", proto_field(1, proto_field(1, b"x"))), (field.encode(), feature)]
    return proto_field(
        1, b"".join(proto_field(1, proto_field(1, name) + proto_field(2, found)) for name, found in entries)
    )


def hf_library(monkeypatch: pytest.MonkeyPatch, values: Sequence[Any], field: str = "text") -> None:
    """Puts a stand-in for ``datasets`` in place, whose every data set has these values."""

    class Rows:
        column_names = ("url", field)
        cache_files: tuple[()] = ()

        def __len__(self) -> int:
            return len(values)

        def select_columns(self, names: list[str]) -> Any:
            for value in values:
                # Arrow decodes strings when they are asked for.
                yield {names[0]: value.decode("utf-8") if isinstance(value, bytes) else value}

    module = types.ModuleType("datasets")
    module.__dict__.update(load_dataset=lambda name, configuration=None, *, split: Rows())
    monkeypatch.setitem(sys.modules, "datasets", module)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _json(value: Any) -> bytes:
    return b'"%s"' % value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()


def _column(values: Sequence[Any]) -> pyarrow.Array:
    if not any(isinstance(value, bytes) for value in values):
        return pyarrow.array(values)
    raw = pyarrow.array([None if value is None else _bytes(value) for value in values], pyarrow.binary())
    return pyarrow.Array.from_buffers(pyarrow.string(), len(raw), raw.buffers())
