"""Readers of Parquet, and of ArrayRecord and TFRecord in the layout of TensorFlow Datasets, without TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sparsejax.data.compression import compression_of
from sparsejax.data.example_proto import features
from sparsejax.data.foreign_text import FormatError, MissingField, NotText, check_size, text_of
from sparsejax.data.tfrecord import read_records
from sparsejax.files.text import one_line

# Rows that are decoded at once, and the bytes they may have if each is as large as its column allows: a dictionary
# page holds a value once, however many rows have it.
_BATCH_ROWS = 256
_BATCH_BYTES = 2**30


def read_parquet(path: Path, text_field: str) -> Iterator[str]:
    """The strings, or UTF-8 bytes, of the column ``text_field``, row after row; empty where it is null."""
    import pyarrow
    import pyarrow.parquet

    _refuse_compressed(path)
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            if text_field not in schema.names:
                raise MissingField("the file", schema.names)
            if schema.names.count(text_field) > 1:
                raise FormatError(f"the file has {schema.names.count(text_field)} columns of that name")
            row = 0
            for column in _batches(file, text_field):
                for value in _values(column, row):
                    yield text_of(value, f"row {row}")
                    row += 1
    except FormatError:
        raise
    # Arrow raises its own errors and those of Python, among them what the C++ standard library throws.
    except (pyarrow.ArrowException, OSError, ValueError, RuntimeError, MemoryError, OverflowError) as error:
        raise FormatError(one_line(error)) from error


def _batches(file: Any, text_field: str) -> Iterator[Any]:
    """The column in pieces of bounded size, by the sizes that the file states."""
    paths = [file.schema.column(leaf).path for leaf in range(len(file.schema))]
    leaves = [leaf for leaf, path in enumerate(paths) if path == text_field]
    for group in range(file.num_row_groups):
        stated = file.metadata.row_group(group)
        largest = max((stated.column(leaf).total_uncompressed_size for leaf in leaves), default=1)
        check_size(largest // (max(stated.num_rows, 1) + 1), f"a text of row group {group}")
        rows = min(max(_BATCH_BYTES // max(largest, 1), 1), _BATCH_ROWS)
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=[text_field], use_threads=False):
            yield batch.column(text_field)


def _values(column: Any, row: int) -> Iterable[Any]:
    """The values of a column from ``row`` on, strings as bytes because Arrow does not check that they are UTF-8."""
    import pyarrow
    import pyarrow.compute
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if types.is_null(kind):
        return [None] * len(column)
    known = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    if not any(is_kind(kind) for is_kind in known):
        return [NotText(str(kind)) if value.is_valid else None for value in column]
    column = column.cast(pyarrow.large_binary())
    lengths = pyarrow.compute.binary_length(column)
    longest = pyarrow.compute.max(lengths).as_py() or 0
    # Before it is copied.
    check_size(longest, f"row {row + pyarrow.compute.index(lengths, longest).as_py()}")
    return (value.as_py() for value in column)


def read_array_record(path: Path, text_field: str) -> Iterator[str]:
    """The bytes feature ``text_field`` of each serialised ``tf.train.Example``, in file order; see ``_text``."""
    from array_record.python import array_record_module

    _refuse_compressed(path)
    try:
        with contextlib.closing(array_record_module.ArrayRecordReader(str(path))) as reader:
            for number in range(reader.num_records()):
                yield _text(reader.read(), text_field, number)
    # The reader raises these for files that are something else, damaged or cut short, some only as it is closed.
    except (RuntimeError, IndexError) as error:
        raise FormatError(one_line(error) or "it is damaged or cut short") from error


def read_tfrecord(path: Path, text_field: str) -> Iterator[str]:
    """The bytes feature ``text_field`` of each serialised ``tf.train.Example``, in file order; see ``_text``."""
    for number, record in enumerate(read_records(path)):
        yield _text(record, text_field, number)


def _text(example: bytes, text_field: str, number: int) -> str:
    """The text of record ``number``, from 0; empty where the feature has no value."""
    check_size(len(example), f"record {number}")
    found = features(example)
    if text_field not in found:
        raise MissingField(f"record {number}", found)
    return text_of(found[text_field], f"record {number}")


def _refuse_compressed(path: Path) -> None:
    """Raises ``FormatError`` for a compressed file of a format that is not read from its beginning to its end."""
    kind = compression_of(path)
    if kind:
        raise FormatError(f"is compressed by {kind}, which this format does inside its files; decompress it")
