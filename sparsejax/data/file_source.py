"""A corpus in files, here or in a bucket, with one reader for each format."""

from __future__ import annotations

import codecs
import copy
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests
from sparsejax.data.compression import decompressed
from sparsejax.data.corpus_file import CorpusFile, shared_files
from sparsejax.data.document import Document
from sparsejax.data.foreign_text import FormatError, MissingField
from sparsejax.data.paths import PathSetting
from sparsejax.data.record_files import read_array_record, read_parquet, read_tfrecord
from sparsejax.data.storage import first_line
from sparsejax.data.text_files import read_jsonl, read_text
from sparsejax.files.text import one_line


class FileSource:
    """The documents of the files a setting names, file after file; a document's identity is its text."""

    def __init__(self, kind: str, where: PathSetting, text_field: str, digests: FileDigests) -> None:
        """Looks the files up; raises ``ConfigError`` if there is none or one is empty.

        Args:
          kind: ``text``, ``jsonl``, ``parquet``, ``arrayrecord`` or ``tfrecord``.
          where: the setting that names the files.
          text_field: the field or column that holds the text (plain text has none).
          digests: remembers the digests of the files.
        """
        self.name = kind
        self.where = where
        self._text_field = "" if kind == "text" else text_field
        self.files: Sequence[CorpusFile] = where.corpus_files(digests)
        self.digests = digests
        self.parts = len(self.files)
        self._read = _reader(kind, text_field)

    def documents(self) -> Iterator[Document]:
        """All documents that have text; raises ``ConfigError`` naming the file that cannot be read."""
        for part in range(self.parts):
            yield from self.part_documents(part)

    def content_digest(self) -> str:
        """sha256 over the format, the text field and the bytes of every file in order; not over their names."""
        return self.combined_digest([self.part_digest(part) for part in range(self.parts)])

    def part_documents(self, part: int) -> Iterator[Document]:
        """The documents of file number ``part`` that have text."""
        file = self.files[part]
        try:
            with file.opened() as path:
                for text in self._read(path):
                    if text:
                        yield Document.of_text(text)
        except MissingField as error:
            raise missing_field(self._text_field, f"{error.place} of {file.name}", error) from error
        except (FormatError, OSError) as error:
            raise self.where.error(f"{file.name} cannot be read as {self.name}: {first_line(error)}") from error

    def part_name(self, part: int) -> str:
        """The last part of the path of file number ``part``."""
        return self.files[part].name.rpartition("/")[2]

    def part_bytes(self, part: int) -> int:
        """Size of file number ``part``."""
        return self.files[part].size

    def part_digest(self, part: int) -> str:
        """sha256 of the bytes of file number ``part``; another one for plain text behind a byte order mark.

        The mark was a token once, so what was made of such files then is not taken for what is made of them now.
        """
        file = self.files[part]
        try:
            if self.name != "text":
                return file.digest()
            return self.digests.remembered("text", [file.stamp], lambda: _text_digest(file))
        except (FormatError, OSError) as error:
            raise self.where.error(f"{file.name} cannot be read: {first_line(error)}") from error

    def without(self, held_out: FileSource) -> tuple[FileSource, str]:
        """This source without the files that ``held_out`` has too, also as copies; see ``sources.Source``."""
        try:
            shared = shared_files(self.files, held_out.files)
        except OSError as error:
            raise self.where.error(f"cannot be read: {first_line(error)}") from error
        if not shared:
            return self, ""
        field, names = held_out.where.field, ", ".join(file.name.rpartition("/")[2] for file in shared)
        if len(shared) == len(self.files):
            raise self.where.error(f"all its files are in {field} too ({names}); nothing is left to train on")
        found = copy.copy(self)
        found.files = [file for file in self.files if file not in shared]
        found.parts = len(found.files)
        note = f"{len(shared)} of {self.parts} files are in {field} too, and validate only: {names}"
        return found, f"{self.where.field}={one_line(self.where.value)}: {one_line(note)}"

    def combined_digest(self, part_digests: Sequence[str]) -> str:
        """``content_digest()`` from the digests of all files."""
        return hashlib.sha256("\n".join([self.name, self._text_field, *part_digests]).encode()).hexdigest()


def _text_digest(file: CorpusFile) -> str:
    digest = file.digest()
    with file.stream() as stream, decompressed(stream) as text:
        marked = text.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
    return hashlib.sha256(f"behind a byte order mark\n{digest}".encode()).hexdigest() if marked else digest


def missing_field(text_field: str, place: str, error: MissingField) -> ConfigError:
    """The error for the record at ``place`` without the field that is asked for."""
    problem = f"{one_line(place)} has no text under that name; it has: {error.present}"
    return ConfigError(f"data.text_field={one_line(text_field)}: {problem}")


def _reader(kind: str, text_field: str) -> Callable[[Path], Iterator[str]]:
    if kind == "text":
        return read_text
    with_field = {
        "jsonl": read_jsonl,
        "parquet": read_parquet,
        "arrayrecord": read_array_record,
        "tfrecord": read_tfrecord,
    }
    if kind not in with_field:
        raise ValueError(f"unknown file format {kind!r}, known: text, {', '.join(with_field)}")
    return functools.partial(with_field[kind], text_field=text_field)
