"""Readers of Parquet, and of ArrayRecord and TFRecord in the layout of TensorFlow Datasets, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sparsejax.data.example_proto import bytes_features
from sparsejax.data.text_files import FormatError, missing_field
from sparsejax.data.tfrecord import read_records

_BATCH = 1024


def read_parquet(path: Path, text_field: str) -> Iterator[str]:
    """The string column ``text_field``, row group after row group; nulls are left out."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if text_field not in names:
                raise missing_field(text_field, str(path), names)
            kind = file.schema_arrow.field(text_field).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise FormatError(f"column {text_field} holds {kind}, not strings")
            for batch in file.iter_batches(batch_size=_BATCH, columns=[text_field]):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)
    except pyarrow.ArrowException as error:
        raise FormatError(str(error).splitlines()[0]) from error


def read_array_record(path: Path, text_field: str) -> Iterator[str]:
    """The bytes feature ``text_field`` of each serialised ``tf.train.Example``, in file order."""
    from array_record.python import array_record_module

    try:
        # Constructing and reading both raise RuntimeError on a file that is not ArrayRecord.
        reader = array_record_module.ArrayRecordReader(str(path))
        for start in range(0, reader.num_records(), _BATCH):
            for record in reader.read(start, min(start + _BATCH, reader.num_records())):
                yield _text_of(record, path, text_field)
        reader.close()
    except RuntimeError as error:
        raise FormatError(str(error).splitlines()[0]) from error


def read_tfrecord(path: Path, text_field: str) -> Iterator[str]:
    """The bytes feature ``text_field`` of each serialised ``tf.train.Example``, in file order."""
    for record in read_records(path):
        yield _text_of(record, path, text_field)


def _text_of(example: bytes, path: Path, text_field: str) -> str:
    try:
        features = bytes_features(example)
        if text_field in features:
            return features[text_field].decode("utf-8")
    except (IndexError, UnicodeDecodeError) as error:
        raise FormatError(str(error).splitlines()[0]) from error
    raise missing_field(text_field, str(path), features)
