"""Plain text and JSON lines."""

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.text_files import FormatError, read_jsonl, read_text

WRITERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("ending", WRITERS)
def test_text_is_cut_at_blank_lines_and_nothing_is_lost(ending: str, tmp_path: Path) -> None:
    paragraphs = [f"paragraph {number} " + "wörd " * 500 + "\r\n\n" for number in range(40)]
    path = tmp_path / f"book.txt{ending}"
    path.write_bytes(WRITERS[ending]("".join(paragraphs).encode()))
    documents = [document for document in read_text(path) if document]
    assert "".join(documents) == "".join(paragraphs)
    assert len(documents) > 3
    for document in documents[:-1]:
        assert 16 * 1024 <= len(document) < 20 * 1024 and document.endswith("\n\n")


def test_text_without_line_ends_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text("x" * 200_000)
    lengths = [len(document) for document in read_text(path)]
    assert sum(lengths) == 200_000 and max(lengths) == 65536


@pytest.mark.parametrize("ending", WRITERS)
def test_jsonl_yields_the_field(ending: str, tmp_path: Path) -> None:
    records = [{"text": "first\nline", "url": "x"}, {"text": ""}, {"text": "é" * 100_000}]
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(WRITERS[ending](("\n".join(json.dumps(record) for record in records) + "\n\n").encode()))
    assert list(read_jsonl(path, "text")) == [record["text"] for record in records]


def test_half_a_surrogate_pair_becomes_encodable(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a\\ud800b"}\n')
    assert list(read_jsonl(path, "text")) == ["a?b"]


def test_a_missing_field_names_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"body": "b", "url": "c"}\n')
    with pytest.raises(ConfigError, match=r"data.text_field=text: line 2 of .* it has: body, url"):
        list(read_jsonl(path, "text"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b'{"text": "a"}\n{"text": ', "line 2 is not JSON"),
        ("rows.jsonl", b"[1]\n", "line 1 is not a JSON object"),
        ("rows.jsonl", b'{"text": "\xe9"}\n', "utf-8"),
        ("rows.jsonl.xz", lzma.compress(b"x" * 100)[:-20], "ended before the end-of-stream"),
    ],
)
def test_broken_files_say_why(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        list(read_jsonl(path, "text"))
