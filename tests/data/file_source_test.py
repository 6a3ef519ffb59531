"""Corpora in files: their digest, and how a broken file is reported."""

import json
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests
from sparsejax.data.file_source import FileSource
from sparsejax.data.paths import PathSetting


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


def test_digest_follows_content_not_place(tmp_path: Path) -> None:
    here, there = write(tmp_path / "here/a.jsonl", "text"), write(tmp_path / "there/b.jsonl", "text")
    cache = tmp_path / "cache"
    digest = source(here, cache).content_digest()
    assert source(there, cache).content_digest() == digest
    assert source(here, cache, field="body").content_digest() != digest
    assert source(here, cache, kind="text").content_digest() != digest
    assert source(write(here, "other text"), cache).content_digest() != digest


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b"not gzip")
    with pytest.raises(ConfigError, match=r"data\.path=.*a\.jsonl\.gz cannot be read as jsonl: Not a gzipped file"):
        list(source(path, tmp_path / "cache").documents())


def test_unknown_formats_are_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown file format 'csv'"):
        source(write(tmp_path / "a.jsonl", "a"), tmp_path, kind="csv")
