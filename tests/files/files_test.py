"""What others wrote is read in one way, names stay in their folder, and writes are whole."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparsejax.config import ConfigError
from sparsejax.files.durable import replace_file, sync_tree
from sparsejax.files.json_records import decode_record, json_row, read_record
from sparsejax.files.names import confined
from sparsejax.files.text import decode_text, lines_of, one_line


class Record(msgspec.Struct):
    size: int
    names: list[str] = []


def test_a_byte_order_mark_is_no_text() -> None:
    assert decode_text(b"\xef\xbb\xbfa\xe2\x80\xa8b", "x") == "a\u2028b"


@pytest.mark.parametrize(
    ("data", "word"),
    [(b"ab\n\xff", "byte 0xff in line 2"), ("a".encode("utf-16"), "UTF-16"), ("a".encode("utf-32"), "UTF-32")],
)
def test_other_encodings_are_one_line(data: bytes, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as found:
        decode_text(data, "a\nb.txt")
    assert "\n" not in str(found.value) and str(found.value).startswith("a\\nb.txt: ")


def test_lines_end_at_line_feeds_only() -> None:
    assert list(lines_of("a\x0cb\u2028c\r\n\nd")) == ["a\x0cb\u2028c", "", "d"]
    assert list(lines_of("")) == [] and list(lines_of("\n")) == [""]


def test_any_value_is_one_printable_line() -> None:
    assert one_line("a\nb\x1b\u2028") == "a\\nb\\x1b\\u2028" and len(one_line("x" * 999)) == 200
    assert one_line("\ud800") == "\\ud800"


@pytest.mark.parametrize(
    ("data", "kind", "word"),
    [
        (b"[" * 100_000 + b"]" * 100_000, Any, "nested too deep"),
        (b"1" * 5000, Any, "out of range"),
        (b'{"size": "1"}', Record, r"Expected `int`, got `str` - at `\$.size`"),
        (b"[]", Record, "Expected `object`"),
        (b'{"size": NaN}', Record, "is not JSON"),
        (b"", Record, "is not JSON"),
        (b"\xff", Record, "is not UTF-8"),
    ],
)
def test_what_is_no_such_record_is_one_line(data: bytes, kind: Any, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as found:
        decode_record(data, kind, name="m.json", fix="restore it")
    assert "\n" not in str(found.value) and str(found.value).endswith(("restore it", "save it as UTF-8"))


def test_records_are_read_from_files_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(b'\xef\xbb\xbf{"size": 3, "other": 1}')
    assert read_record(path, Record, fix="restore it") == Record(3)
    with pytest.raises(ConfigError, match="more than 4"):
        read_record(path, Record, fix="restore it", max_bytes=4)
    for missing in (tmp_path / "no.json", tmp_path):
        with pytest.raises(ConfigError, match="there is no such file; restore it"):
            read_record(missing, Record, fix="restore it")


def test_rows_hold_no_number_that_json_has_not() -> None:
    row = json.loads(json_row({"a": math.nan, "b": [1.0, -math.inf], "c": {"d": math.inf}, "e": 2}))
    assert row == {
        "a": None,
        "b": [1.0, None],
        "c": {"d": None},
        "e": 2,
        "not_finite": {"a": "nan", "b[1]": "-inf", "c.d": "inf"},
    }
    assert json_row({"a": 1.5}) == '{"a": 1.5}'


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../x", "/x", "a\\..\\x", "a\0b", "gs://x", "C:x"])
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"m\.json: names the file"):
        confined(tmp_path, name, named_in="m.json")


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="a link out of its folder"):
        confined(folder, "out/x", named_in="m.json")
    assert confined(folder, "a/b-0.bin", named_in="m.json") == folder / "a" / "b-0.bin"


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    replace_file(path, "one")

    def full(_: object, __: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"two")
    assert path.read_text() == "one" and [found.name for found in tmp_path.iterdir()] == ["a.json"]


def test_a_tree_is_synced_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("x")
    synced: list[Path] = []
    monkeypatch.setattr("sparsejax.files.durable.sync_path", lambda path: synced.append(Path(path)))
    sync_tree(tmp_path / "a")
    assert synced[-1] == tmp_path and set(synced) == {
        tmp_path / "a" / "b" / "c",
        tmp_path / "a" / "b",
        tmp_path / "a",
        tmp_path,
    }
