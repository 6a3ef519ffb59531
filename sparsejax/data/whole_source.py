"""A source that is read as one part, because nothing divides it into files that another host could take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from sparsejax.data.document import Document


class WholeSource(ABC):
    """The parts of a source that has one; see ``sources.Source``."""

    name: str
    parts = 1

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """All documents, in the same order every time."""

    @abstractmethod
    def content_digest(self) -> str:
        """Hexadecimal sha256 of everything that decides ``documents()``."""

    def part_documents(self, part: int) -> Iterator[Document]:
        """All documents: ``part`` is 0."""
        return self.documents()

    def part_name(self, part: int) -> str:
        """The name of the source: ``part`` is 0."""
        return self.name

    def part_bytes(self, part: int) -> int:
        """0: it is no file."""
        return 0

    def part_digest(self, part: int) -> str:
        """The digest of the whole: ``part`` is 0."""
        return self.content_digest()

    def combined_digest(self, part_digests: Sequence[str]) -> str:
        """The digest of the one part."""
        (digest,) = part_digests
        return digest
