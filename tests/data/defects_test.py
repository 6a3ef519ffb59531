"""One rule for all formats: every defect in every format is read alike, or refused in one line."""

import functools
import random
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from sparsejax.data import foreign_text, text_files
from tests.data.formats import (
    COMPRESSIONS,
    FILES,
    RECORDS,
    STREAMS,
    array_record,
    content_of,
    example,
    hf_library,
    read,
    tfrecord,
)

MARK = b"\xef\xbb\xbf"
TEXTS = [f"{number}: Ünïcode, 日本, a \x0c form feed \u2028 and {'more ' * (number % 7)}" for number in range(30)]
NOT_TEXT = "in that field, not text"
NOT_UTF8 = "(line 2|row 1|record 1) is not UTF-8: byte 0xe9; convert the file to UTF-8"
# Values of records, and the texts they give or what the line that refuses them says.
VALUES: dict[str, tuple[list[Any], list[str] | str]] = {
    "null": (["a", None, "b"], ["a", "b"]),
    "only null": ([None, None], []),
    "empty": (["a", "", "b"], ["a", "b"]),
    "a mark in a record is text": (["\ufeffa"], ["\ufeffa"]),
    "not UTF-8": (["a", b"caf\xe9"], NOT_UTF8),
    "numbers": ([1, 2], NOT_TEXT),
    "lists": ([["a", "b"]], NOT_TEXT),
    "long": (["x" * 999], ["x" * 999]),
    "too long": (["a", "x" * 3000], "longer than 2,000 bytes; cut it into documents"),
}


@functools.cache
def whole(kind: str) -> bytes:
    return content_of(kind, TEXTS)


def expected(kind: str) -> list[str]:
    return ["\n\n".join(TEXTS)] if kind == "text" else TEXTS


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (foreign_text, text_files):
        monkeypatch.setattr(module, "MAX_BYTES", 2000)


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("defect", VALUES)
def test_values(kind: str, defect: str, short_limit: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, wanted = VALUES[defect]
    path = tmp_path / "rows"
    if kind == "hf":
        hf_library(monkeypatch, values)
    else:
        path.write_bytes(content_of(kind, values))
    found = read(kind, path, tmp_path)
    if wanted == NOT_UTF8 and kind == "hf":
        # The library decodes by itself.
        wanted = "can't decode byte 0xe9"
    assert re.search(wanted, str(found)) if isinstance(wanted, str) else found == wanted


@pytest.mark.parametrize("kind", RECORDS)
def test_fields_that_are_not_there(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows"
    if kind == "hf":
        hf_library(monkeypatch, ["a"], "a\nname")
    else:
        # Writers of JSON escape what stands between quotes.
        path.write_bytes(content_of(kind, ["a"], "a\\nname" if kind == "jsonl" else "a\nname"))
    found = read(kind, path, tmp_path, field="bo\ndy")
    assert re.match(r"data.text_field=bo\\ndy: .* has no text under that name; it has: url, a\\nname$", str(found))


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", ["{}", "{}.gz", "A.JSONL.GZ", "a b#?%.xz.txt"])
def test_compression_is_told_by_content(kind: str, compression: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name.format(f"rows{compression}")
    path.write_bytes(COMPRESSIONS[compression](whole(kind)))
    found = read(kind, path, tmp_path)
    if kind in STREAMS or not compression:
        assert found == expected(kind)
    else:
        assert re.search(r"is compressed by \w+, which this format does inside its files; decompress it", str(found))


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_streams_one_after_another(kind: str, compression: str, tmp_path: Path) -> None:
    compress, content = COMPRESSIONS[compression], whole(kind)
    first, second = compress(content[:700]), compress(content[700:])
    (tmp_path / "rows").write_bytes(first + second)
    assert read(kind, tmp_path / "rows", tmp_path) == expected(kind)
    if compression:
        # Neither half of a second stream nor something else behind the first is passed over.
        for tail in (second[: len(second) // 2], second[:3], b"garbage behind it"):
            (tmp_path / "rows").write_bytes(first + tail)
            assert isinstance(read(kind, tmp_path / "rows", tmp_path), str)
    if compression == ".xz":
        (tmp_path / "rows").write_bytes(first + second + b"\0" * 80_000)
        assert read(kind, tmp_path / "rows", tmp_path) == expected(kind)
        (tmp_path / "rows").write_bytes(first + b"\0" * 80_000 + second)
        assert "behind the zeros" in str(read(kind, tmp_path / "rows", tmp_path))


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("zip", b"PK\x03\x04"),
        ("7z", b"7z\xbc\xaf\x27\x1c"),
        ("lz4", b"\x04\x22\x4d\x18"),
        ("tar", b" " * 257 + b"ustar"),
    ],
)
@pytest.mark.parametrize("kind", STREAMS)
def test_archives_are_named(name: str, start: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(start + b" " * 400)
    assert re.search(rf"rows cannot be read as {kind}: is .*{name}", str(read(kind, tmp_path / "rows", tmp_path)))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_a_byte_order_mark_is_no_text(kind: str, compression: str, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(COMPRESSIONS[compression](MARK + whole(kind)))
    assert read(kind, tmp_path / "rows", tmp_path) == expected(kind)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "latin-1"])
@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_other_encodings_are_refused(kind: str, encoding: str, tmp_path: Path) -> None:
    content = content_of(kind, ["ä" * 40]).decode().encode(encoding)
    (tmp_path / "rows").write_bytes((b"\xfe\xff" if encoding == "utf-16-be" else b"") + content)
    assert re.search("is UTF-16|is not UTF-8: byte 0x", str(read(kind, tmp_path / "rows", tmp_path)))


@pytest.mark.parametrize("kind", FILES)
def test_files_cut_short(kind: str, tmp_path: Path) -> None:
    content = whole(kind)
    for end in (1, 3, len(content) // 3, len(content) // 2, len(content) - 9, len(content) - 1):
        (tmp_path / "rows").write_bytes(content[:end])
        found = read(kind, tmp_path / "rows", tmp_path)
        assert not str(found).endswith("Error")
        # Plain text ends anywhere, and lines where they end.
        assert isinstance(found, str) or kind == "text" or (kind == "jsonl" and found == TEXTS[: len(found)])


@pytest.mark.parametrize("kind", FILES)
def test_bits_that_flip(kind: str, tmp_path: Path) -> None:
    draw = random.Random(f"flips of {kind}")
    for _ in range(25):
        content = bytearray(whole(kind))
        for _ in range(draw.choice((1, 1, 4))):
            content[draw.choice([place for place in range(len(content)) if content[place]])] ^= 1 << draw.randrange(8)
        (tmp_path / "rows").write_bytes(content)
        found = read(kind, tmp_path / "rows", tmp_path)
        # Formats with checksums give the texts or none.
        assert isinstance(found, str) or kind in ("text", "jsonl") or found == TEXTS


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("other", FILES)
def test_files_of_another_format(kind: str, other: str, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(whole(other))
    found = read(kind, tmp_path / "rows", tmp_path)
    assert isinstance(found, str) != (kind == other or (kind == "text" and other == "jsonl"))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b'{"text": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "line 1 is nested too deep"),
        (b'{"x": ' * 100_000 + b"1" + b"}" * 100_000, "line 1 is nested too deep"),
        (b'{"text": "a", "x": -%s, "y": 1.%se9, "z": NaN}' % (b"7" * 5000, b"1" * 5000), ["a"]),
        (b'{"text": 1%s}' % (b"0" * 5000), NOT_TEXT),
        (b'{"text": true}', NOT_TEXT),
        (b'{"a\\nb\\u001b": 1}', r"line 1 of .* it has: a\\nb\\x1b"),
        (b'\n{"text": ', "line 2 is not JSON"),
        (b"[1]", "line 1 is not a JSON object"),
        (b'"text"', "line 1 is not a JSON object"),
        (b'{"text": "a\\ud800b"}', ["a?b"]),
        (b'{"text": "a"}\r\n\r\n \t\n{"text": "b"}', ["a", "b"]),
    ],
)
def test_lines_of_json(line: bytes, wanted: list[str] | str, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(line)
    found = read("jsonl", tmp_path / "rows", tmp_path)
    assert re.search(wanted, str(found)) if isinstance(wanted, str) else found == wanted


@pytest.mark.parametrize("length", [2**40, 2**64 - 1, 2**26 + 1])
def test_records_longer_than_any_file(length: int, tmp_path: Path) -> None:
    from sparsejax.data.tfrecord import masked_crc

    head = length.to_bytes(8, "little")
    (tmp_path / "rows").write_bytes(head + masked_crc(head).to_bytes(4, "little") + b"x" * 100)
    assert "the record at byte 0 is longer than 67,108,864 bytes" in str(read("tfrecord", tmp_path / "rows", tmp_path))


def test_a_length_that_looks_like_gzip(tmp_path: Path) -> None:
    # 1f 8b 08 is both the beginning of gzip and the length 559,903.
    record = example("text", "x" * 9000)
    record += bytes([0x7A]) + b"\xff\x7f" + b"p" * 16383
    padding = 559_903 - len(record)
    record += bytes([0x7A, padding - 4 & 0x7F | 0x80, (padding - 4) >> 7 & 0x7F | 0x80, (padding - 4) >> 14])
    record += b"p" * (padding - 4)
    assert tfrecord([record]).startswith(b"\x1f\x8b\x08")
    (tmp_path / "rows").write_bytes(tfrecord([record]))
    assert read("tfrecord", tmp_path / "rows", tmp_path) == ["x" * 9000]


@pytest.mark.parametrize("message", [b"\xff" * 50_000, b"\x0a\xff", b"\x0b", b"\x0a\x05\x0a\x03\x0a\x09x"])
@pytest.mark.parametrize("wrap", [tfrecord, array_record])
def test_records_that_are_no_examples(message: bytes, wrap: Any, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(wrap([message]))
    kind = "tfrecord" if wrap is tfrecord else "arrayrecord"
    assert "tf.train.Example" in str(read(kind, tmp_path / "rows", tmp_path))


@pytest.mark.parametrize("as_type", ["large_string", "string_view", "binary", "large_binary", "dictionary"])
def test_columns_of_strings_in_every_type(as_type: str, tmp_path: Path) -> None:
    column = pyarrow.array([*TEXTS, None, ""])
    column = column.dictionary_encode() if as_type == "dictionary" else column.cast(getattr(pyarrow, as_type)())
    pyarrow.parquet.write_table(pyarrow.table({"a.b": column, "a": column}), tmp_path / "rows", row_group_size=7)
    assert read("parquet", tmp_path / "rows", tmp_path, field="a.b") == TEXTS


def test_columns_of_one_name(tmp_path: Path) -> None:
    column = pyarrow.array(["a"])
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([column, column], names=["text", "text"]), tmp_path / "rows")
    assert "the file has 2 columns of that name" in str(read("parquet", tmp_path / "rows", tmp_path))
