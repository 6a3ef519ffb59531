"""A corpus in files: plain text, JSON lines, Parquet or ArrayRecord, one reader for each format."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from sparsejax.data.cache import FileDigests
from sparsejax.data.document import Document
from sparsejax.data.paths import PathSetting
from sparsejax.data.record_files import read_array_record, read_parquet
from sparsejax.data.text_files import FormatError, read_jsonl, read_text


class FileSource:
    """The documents of the files a setting names, file after file; a document's identity is its text."""

    def __init__(self, kind: str, where: PathSetting, text_field: str, digests: FileDigests) -> None:
        """Looks the files up; raises ``ConfigError`` if there is none or one is empty.

        Args:
          kind: ``text``, ``jsonl``, ``parquet`` or ``arrayrecord``.
          where: the setting that names the files.
          text_field: the field or column that holds the text (plain text has none).
          digests: remembers the digests of the files.
        """
        self.name = kind
        self._where = where
        self._text_field = "" if kind == "text" else text_field
        self._files = where.files()
        self._digests = digests
        self._read = _reader(kind, text_field)

    def documents(self) -> Iterator[Document]:
        """All documents that have text; raises ``ConfigError`` naming the file that cannot be read."""
        for path in self._files:
            try:
                for text in self._read(path):
                    if text:
                        yield Document.of_text(text)
            except (FormatError, OSError) as error:
                raise self._where.error(f"{path} cannot be read as {self.name}: {error}") from error

    def content_digest(self) -> str:
        """sha256 over the format, the text field and the bytes of every file in order; not over their names."""
        parts = [self.name, self._text_field, *(self._digests.digest(path) for path in self._files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _reader(kind: str, text_field: str) -> Callable[[Path], Iterator[str]]:
    if kind == "text":
        return read_text
    with_field = {"jsonl": read_jsonl, "parquet": read_parquet, "arrayrecord": read_array_record}
    if kind not in with_field:
        raise ValueError(f"unknown file format {kind!r}, known: text, {', '.join(with_field)}")
    return functools.partial(with_field[kind], text_field=text_field)
