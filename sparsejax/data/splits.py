"""Training and validation documents of a corpus: two sources, or one source cut by a hash of each document."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sparsejax.config import ConfigError, DataConfig
from sparsejax.data.cache import FileDigests
from sparsejax.data.distinct_source import DistinctSource
from sparsejax.data.document import Document, split_fraction
from sparsejax.data.paths import PathSetting
from sparsejax.data.sources import Source, make_source
from sparsejax.files.text import one_line

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)


class Part(NamedTuple):
    """One part of a corpus: part ``number`` of ``source``."""

    source: Source
    number: int


@dataclass(frozen=True)
class SplitCorpus:
    """A corpus and its division.

    Attributes:
      source: the training documents, and unless ``validation_source`` is given the validation documents too.
      validation_source: the validation documents, or ``None`` to take them out of ``source``.
      fraction: without a validation source, the expected fraction of documents that validate.
      where: how an error names the corpus, such as ``data.path=books/*.jsonl``.
      notes: lines about what was left out of ``source`` because it validates.
    """

    source: Source
    validation_source: Source | None
    fraction: float
    where: str
    notes: tuple[str, ...] = ()

    def late_note(self) -> str:
        """A line about documents that do not train because their texts validate; empty before ``digest`` is called."""
        return self.source.note() if isinstance(self.source, DistinctSource) else ""

    @property
    def parts(self) -> list[Part]:
        """The parts of the source and then those of the validation source."""
        sources = [source for source in (self.source, self.validation_source) if source is not None]
        return [Part(source, number) for source in sources for number in range(source.parts)]

    @property
    def division(self) -> str:
        """Rule by which documents validate: ``source``, or ``fraction`` and its value."""
        return f"fraction {self.fraction!r}" if self.validation_source is None else "source"

    def part_documents(self, part: Part) -> Iterator[tuple[str, Document]]:
        """Every document of a part with the split it belongs to, in source order."""
        for document in part.source.part_documents(part.number):
            if self.validation_source is None:
                validates = split_fraction(document.identity) < self.fraction
            else:
                validates = part.source is self.validation_source
            yield (VALIDATION if validates else TRAIN), document

    def documents(self) -> Iterator[tuple[str, Document]]:
        """Every document with the split it belongs to, in source order."""
        for part in self.parts:
            yield from self.part_documents(part)

    def train_documents(self) -> Iterator[Document]:
        """The training documents in source order."""
        for split, document in self.documents():
            if split == VALIDATION and self.validation_source is not None:
                return
            if split == TRAIN:
                yield document

    def digest(self) -> str:
        """Hexadecimal sha256 of the content of both splits when this was first called; not of where files lie."""
        return self._digest

    def check_unchanged(self) -> None:
        """Raises ``ConfigError`` if the text is no longer that of ``digest``: it was changed while it was read."""
        if self._digest_now() != self._digest:
            raise ConfigError(f"{self.where}: the text changed while it was read; run the command again")

    @functools.cached_property
    def _digest(self) -> str:
        return self._digest_now()

    def _digest_now(self) -> str:
        return self.combined_digest([part.source.part_digest(part.number) for part in self.parts])

    def combined_digest(self, part_digests: Sequence[str]) -> str:
        """``digest()`` from the digests of all ``parts``, in order."""
        content = self.source.combined_digest(part_digests[: self.source.parts])
        division = self.division
        if self.validation_source is not None:
            division += f" {self.validation_source.combined_digest(part_digests[self.source.parts :])}"
        return hashlib.sha256(f"{content}\n{division}".encode()).hexdigest()


def split_corpus(config: DataConfig, digests: FileDigests) -> SplitCorpus:
    """The corpus a configuration names; raises ``ConfigError`` if its files are missing or empty, or all validate."""
    where = PathSetting("data.path", config.path)
    source = make_source(config.source, where, config.text_field, digests)
    validation, note = None, ""
    train: Source = source
    if config.validation_path:
        # A validation file beside the standard library is plain text: the library itself has only one place.
        kind = "text" if config.source == "stdlib" else config.source
        validation_where = PathSetting("data.validation_path", config.validation_path)
        validation = make_source(kind, validation_where, config.text_field, digests)
        kept, note = source.without(validation)
        train = DistinctSource(kept, validation, digests)
    name = "data.source=stdlib" if config.source == "stdlib" else f"data.path={one_line(config.path)}"
    return SplitCorpus(train, validation, config.validation_fraction, name, (note,) if note else ())
