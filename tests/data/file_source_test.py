"""Corpora in files: their digest, and how a broken file is reported."""

import gzip
import json
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests, file_sha256
from sparsejax.data.file_source import FileSource
from sparsejax.data.paths import PathSetting
from sparsejax.data.storage import StoredDirectory, StoredFile
from tests.data.conftest import new_bucket


def source(path: Path | str, cache: Path, kind: str = "jsonl", field: str = "text") -> FileSource:
    return FileSource(kind, PathSetting("data.path", str(path)), field, FileDigests(cache))


def write(path: Path, *texts: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_documents_of_all_files_in_order_without_empty_ones(tmp_path: Path) -> None:
    write(tmp_path / "in/1.jsonl", "a", "")
    write(tmp_path / "in/0.jsonl", "b", "c")
    documents = source(tmp_path / "in/*.jsonl", tmp_path / "cache").documents()
    assert [document.text for document in documents] == ["b", "c", "a"]


def test_files_are_parts(tmp_path: Path) -> None:
    write(tmp_path / "in/1.jsonl", "a", "d")
    write(tmp_path / "in/0.jsonl", "b", "c")
    found = source(tmp_path / "in/*.jsonl", tmp_path / "cache")
    parts = [[document.text for document in found.part_documents(part)] for part in range(found.parts)]
    assert parts == [["b", "c"], ["a", "d"]]
    digests = [found.part_digest(part) for part in (0, 1)]
    assert digests[1] == file_sha256(tmp_path / "in/1.jsonl")
    assert found.combined_digest(digests) == found.content_digest() != found.combined_digest(digests[::-1])


def test_files_in_a_bucket_are_read_like_files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("1.jsonl.gz", "a"), ("0.jsonl.gz", "b")):
        (tmp_path / name).write_bytes(gzip.compress(json.dumps({"text": text}).encode()))
    bucket = StoredDirectory(new_bucket())
    for name in ("0.jsonl.gz", "1.jsonl.gz"):
        bucket.write_file(name, tmp_path / name)
    here, there = source(tmp_path / "*.gz", tmp_path / "a"), source(f"{bucket.location}/*.gz", tmp_path / "b")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert list(there.documents()) == list(here.documents())
    assert list((tmp_path / "tmp").iterdir()) == []
    # Fetching them has digested them too.
    monkeypatch.setattr(StoredFile, "copy_to", None)
    assert there.content_digest() == here.content_digest()


def test_a_copy_that_arrives_cut_short_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = StoredDirectory(new_bucket())
    bucket.write("a.txt", b"whole text")
    found = source(f"{bucket.location}/a.txt", tmp_path / "cache", kind="text")
    monkeypatch.setattr(StoredFile, "copy_to", lambda self, sink: str(sink.write(b"whole")) * 64)
    with pytest.raises(
        ConfigError, match=r"a\.txt cannot be read as text: 5 of 10 bytes arrived; run the command again"
    ):
        list(found.documents())


def test_digest_follows_content_not_place(tmp_path: Path) -> None:
    here, there = write(tmp_path / "here/a.jsonl", "text"), write(tmp_path / "there/b.jsonl", "text")
    cache = tmp_path / "cache"
    digest = source(here, cache).content_digest()
    assert source(there, cache).content_digest() == digest
    assert source(here, cache, field="body").content_digest() != digest
    assert source(here, cache, kind="text").content_digest() != digest
    assert source(write(here, "other text"), cache).content_digest() != digest


def test_text_behind_a_mark_has_another_digest(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    for name, content in (("plain", b"text"), ("marked", mark + b"text"), ("inside", b"text" + mark)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    bucket = StoredDirectory(new_bucket())
    bucket.write_file("marked", tmp_path / "marked")
    for name, changed in (("plain", False), ("inside", False), ("marked", True), ("marked.gz", True)):
        found = source(tmp_path / name, tmp_path / "cache", kind="text").part_digest(0)
        assert (found != file_sha256(tmp_path / name)) == changed
    digests = [
        source(path, tmp_path / "cache", kind="text").part_digest(0)
        for path in (f"{bucket.location}/marked", tmp_path / "marked")
    ]
    assert digests[0] == digests[1]


def test_unknown_formats_are_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown file format 'csv'"):
        source(write(tmp_path / "a.jsonl", "a"), tmp_path, kind="csv")
