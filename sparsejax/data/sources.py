"""Where text comes from: a source yields documents in a fixed order and knows a digest of its content.

Kinds (``data.source``): ``stdlib``, the sources of the running Python; ``text``, ``jsonl``, ``parquet`` and
``arrayrecord``, files matched by ``data.path``; ``hf``, a data set of the Hugging Face ``datasets`` library.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from sparsejax.data.cache import FileDigests
from sparsejax.data.document import Document
from sparsejax.data.file_source import FileSource
from sparsejax.data.hf_source import HfSource
from sparsejax.data.paths import PathSetting
from sparsejax.data.stdlib_source import StdlibSource


class Source(Protocol):
    """A corpus before tokenisation."""

    name: str

    def documents(self) -> Iterator[Document]:
        """All documents, in the same order every time."""
        ...

    def content_digest(self) -> str:
        """Hexadecimal sha256 of everything that decides ``documents()``; independent of where files lie."""
        ...


def make_source(kind: str, where: PathSetting, text_field: str, digests: FileDigests) -> Source:
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
