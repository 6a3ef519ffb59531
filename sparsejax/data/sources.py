"""Where text comes from: a source yields documents in a fixed order and knows a digest of its content.

Kinds (``data.source``): ``stdlib``, the sources of the running Python; ``text``, ``jsonl``, ``parquet``,
``arrayrecord`` and ``tfrecord``, files matched by ``data.path``, local or in a bucket; ``hf``, a data set of the
Hugging Face ``datasets`` library. Files are the parts that hosts share out among themselves; other sources have one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from sparsejax.data.cache import FileDigests
from sparsejax.data.document import Document
from sparsejax.data.file_source import FileSource
from sparsejax.data.hf_source import HfSource
from sparsejax.data.paths import PathSetting
from sparsejax.data.stdlib_source import StdlibSource


class Source(Protocol):
    """A corpus before tokenisation.

    Attributes:
      name: its kind.
      parts: into how many parts it falls; part after part, their documents are all documents.
    """

    name: str
    parts: int

    def documents(self) -> Iterator[Document]:
        """All documents, in the same order every time."""
        ...

    def content_digest(self) -> str:
        """Hexadecimal sha256 of everything that decides ``documents()``; independent of where files lie."""
        ...

    def part_documents(self, part: int) -> Iterator[Document]:
        """The documents of one part of ``[0, parts)``."""
        ...

    def part_name(self, part: int) -> str:
        """What a person tells a part by, wherever it lies."""
        ...

    def part_bytes(self, part: int) -> int:
        """Bytes of the file that is a part; 0 if it is no file."""
        ...

    def part_digest(self, part: int) -> str:
        """Hexadecimal sha256 of one part."""
        ...

    def combined_digest(self, part_digests: Sequence[str]) -> str:
        """``content_digest()`` from the digests of all parts, in order."""
        ...


class ConfiguredSource(Source, Protocol):
    """A source as settings name it, before anything is left out."""

    def without(self, held_out: Any) -> tuple[ConfiguredSource, str]:
        """This source without what ``held_out`` has too, and a line that says so; itself and "" if that is nothing.

        Args:
          held_out: the source of the validation documents that ``make_source`` makes beside this one.

        Raises:
          ConfigError: nothing is left.
        """
        ...


def make_source(kind: str, where: PathSetting, text_field: str, digests: FileDigests) -> ConfiguredSource:
    """The source of a kind.

    Args:
      kind: a legal value of ``data.source``.
      where: the setting that names the files (not used by ``stdlib``).
      text_field: the field or column that holds the text, for all formats but plain text.
      digests: remembers the digests of files.

    Raises:
      ConfigError: the setting matches no file, or only empty ones.
    """
    if kind == "stdlib":
        return StdlibSource()
    if kind == "hf":
        return HfSource(where, text_field, digests)
    return FileSource(kind, where, text_field, digests)
