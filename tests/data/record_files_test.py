"""Parquet and ArrayRecord files."""

import glob
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sparsejax.data import foreign_text, record_files
from sparsejax.data.example_proto import features
from sparsejax.data.foreign_text import FormatError, NotText
from sparsejax.data.record_files import read_array_record, read_parquet, read_tfrecord
from tests.data.conftest import example, proto_field


def found_files(pattern: str) -> list[Path]:
    return [Path(name) for name in sorted(glob.glob(pattern))]


def test_c4_as_array_records(c4_array_record: str) -> None:
    files = found_files(c4_array_record)
    documents = [text for file in files for text in read_array_record(file, "text")]
    assert len(files) == 2 and len(documents) == 200
    assert all(documents) and len(set(documents)) > 150
    assert next(iter(read_array_record(files[0], "timestamp"))).startswith("2019")


def test_c4_as_tfrecords(c4_array_record: str, c4_tfrecord: str) -> None:
    found, same = (
        sorted(text for file in found_files(pattern) for text in read(file, "text"))
        for pattern, read in ((c4_tfrecord, read_tfrecord), (c4_array_record, read_array_record))
    )
    assert found == same and len(found) == 200


def test_broken_tfrecords_are_refused(c4_tfrecord: str, tmp_path: Path) -> None:
    content = found_files(c4_tfrecord)[0].read_bytes()
    first = 16 + int.from_bytes(content[:8], "little")
    for name, broken, message in (
        ("half", content[: first - 1], "the record at byte 0 is cut short"),
        ("head", content[: first + 5], f"no record begins at byte {first}"),
        ("bit", bytes([content[0] ^ 1]) + content[1:], "no record begins at byte 0"),
        ("text", content[:40] + bytes([content[40] ^ 1]) + content[41:], "the record at byte 0 is damaged"),
    ):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(FormatError, match=message):
            list(read_tfrecord(tmp_path / name, "text"))


def test_c4_as_parquet(c4_parquet: str) -> None:
    files = found_files(c4_parquet)
    documents = [text for file in files for text in read_parquet(file, "text")]
    assert len(files) == 2 and len(documents) > 100 and all(documents)


def test_an_example_byte_by_byte() -> None:
    # features { feature { key: "t" value { bytes_list { value: "hi" } } } }
    message = bytes([0x0A, 13, 0x0A, 11, 0x0A, 1, ord("t"), 0x12, 6, 0x0A, 4, 0x0A, 2]) + b"hi"
    assert features(message) == {"t": b"hi"}
    assert example(t=b"hi") == message


def test_other_features_and_long_values_are_no_obstacle() -> None:
    integers = proto_field(1, b"n") + proto_field(2, proto_field(3, bytes([0x08, 0x96, 0x01])))
    message = example(text=b"x" * 9000, empty=b"") + proto_field(1, proto_field(1, integers))
    assert features(message) == {"text": b"x" * 9000, "empty": b"", "n": NotText("integer numbers")}


def test_rows_decoded_at_once_are_few_where_a_page_may_hold_large_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "_BATCH_BYTES", 2**18)
    # A dictionary page holds a value once, however many rows have it.
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 500, pyarrow.int32()), ["x" * 2**14])
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "rows")
    assert (tmp_path / "rows").stat().st_size < 2**14
    with pyarrow.parquet.ParquetFile(tmp_path / "rows") as file:
        sizes = [len(batch) for batch in record_files._batches(file, "text")]
    assert sum(sizes) == 500 and max(sizes) * 2**14 <= 2**18
    monkeypatch.setattr(foreign_text, "MAX_BYTES", 2**14)
    with pyarrow.parquet.ParquetWriter(tmp_path / "long", pyarrow.schema([("text", pyarrow.string())])) as writer:
        for size in (10, 2**16):
            writer.write_table(pyarrow.table({"text": ["x" * size]}))
    texts = read_parquet(tmp_path / "long", "text")
    assert next(texts) == "x" * 10
    with pytest.raises(FormatError, match=r"a text of row group 1 is longer than 16,384 bytes"):
        next(texts)
