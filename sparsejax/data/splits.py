"""Training and validation documents of a corpus: two sources, or one source cut by a hash of each document."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from sparsejax.config import DataConfig
from sparsejax.data.cache import FileDigests
from sparsejax.data.document import Document, split_fraction
from sparsejax.data.paths import PathSetting
from sparsejax.data.sources import Source, make_source

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)


@dataclass(frozen=True)
class SplitCorpus:
    """A corpus and its division.

    Attributes:
      source: the training documents, and unless ``validation_source`` is given the validation documents too.
      validation_source: the validation documents, or ``None`` to take them out of ``source``.
      fraction: without a validation source, the expected fraction of documents that validate.
      where: how an error names the corpus, such as ``data.path=books/*.jsonl``.
    """

    source: Source
    validation_source: Source | None
    fraction: float
    where: str

    def documents(self) -> Iterator[tuple[str, Document]]:
        """Every document with the split it belongs to, in source order."""
        if self.validation_source is None:
            for document in self.source.documents():
                yield (VALIDATION if split_fraction(document.identity) < self.fraction else TRAIN), document
            return
        yield from ((TRAIN, document) for document in self.source.documents())
        yield from ((VALIDATION, document) for document in self.validation_source.documents())

    def train_documents(self) -> Iterator[Document]:
        """The training documents in source order."""
        for split, document in self.documents():
            if split == VALIDATION and self.validation_source is not None:
                return
            if split == TRAIN:
                yield document

    def digest(self) -> str:
        """Hexadecimal sha256 of the content of both splits; independent of where files lie."""
        if self.validation_source is None:
            division = f"fraction {self.fraction!r}"
        else:
            division = f"source {self.validation_source.content_digest()}"
        return hashlib.sha256(f"{self.source.content_digest()}\n{division}".encode()).hexdigest()


def split_corpus(config: DataConfig, digests: FileDigests) -> SplitCorpus:
    """The corpus a configuration names; raises ``ConfigError`` if its files are missing or empty."""
    where = PathSetting("data.path", config.path)
    source = make_source(config.source, where, config.text_field, digests)
    validation = None
    if config.validation_path:
        # A validation file beside the standard library is plain text: the library itself has only one place.
        kind = "text" if config.source == "stdlib" else config.source
        validation_where = PathSetting("data.validation_path", config.validation_path)
        validation = make_source(kind, validation_where, config.text_field, digests)
    name = "data.source=stdlib" if config.source == "stdlib" else f"data.path={config.path}"
    return SplitCorpus(source, validation, config.validation_fraction, name)
