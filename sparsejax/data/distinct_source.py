"""A source without the documents whose texts validate."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence

from sparsejax.data.cache import FileDigests
from sparsejax.data.document import Document
from sparsejax.data.sources import Source
from sparsejax.files.text import one_line

_KEY_BYTES = 16
_SHOWN_PARTS = 3


class DistinctSource:
    """A source in which no document has the text of a document of another one; see ``sources.Source``.

    Parts that have none of those texts keep their digests, so a corpus without equal texts is what it would be without
    this class. Which parts have some is found by reading them once, and remembered for their digests.
    """

    def __init__(self, source: Source, held_out: Source, digests: FileDigests) -> None:
        """Reads nothing yet.

        Args:
          source: all documents.
          held_out: the documents whose texts are left out of ``source``.
          digests: remembers the digests of parts.
        """
        self.name = source.name
        self.parts = source.parts
        self._source, self._held_out, self._digests = source, held_out, digests
        self._left_out: dict[int, int] = {}
        self._changed: set[int] = set()

    def documents(self) -> Iterator[Document]:
        """All documents that are left."""
        for part in range(self.parts):
            yield from self.part_documents(part)

    def content_digest(self) -> str:
        """See ``sources.Source``."""
        return self.combined_digest([self.part_digest(part) for part in range(self.parts)])

    def part_documents(self, part: int) -> Iterator[Document]:
        """The documents of a part that are left."""
        left_out = 0
        for document in self._source.part_documents(part):
            if _key(document.text) in self._texts:
                left_out += 1
            else:
                yield document
        self._left_out[part] = left_out

    def part_name(self, part: int) -> str:
        """The name of the part."""
        return self._source.part_name(part)

    def part_bytes(self, part: int) -> int:
        """Bytes of the file that is the part, with what is left out."""
        return self._source.part_bytes(part)

    def part_digest(self, part: int) -> str:
        """The digest of the part, or another one if documents are left out of it."""
        whole = self._source.part_digest(part)
        purpose = f"distinct {self._source.combined_digest([whole])} {self._held_out_digest}"
        found = self._digests.remembered(purpose, [], lambda: self._distinct_digest(part, whole))
        if found != whole:
            self._changed.add(part)
        return found

    def combined_digest(self, part_digests: Sequence[str]) -> str:
        """``content_digest()`` from the digests of all parts."""
        return self._source.combined_digest(part_digests)

    def note(self) -> str:
        """A line about the parts that were digested and have documents that are left out; empty if none has."""
        if not self._changed:
            return ""
        names = [one_line(self.part_name(part)) for part in sorted(self._changed)]
        shown = ", ".join([*names[:_SHOWN_PARTS], *["..."][: len(names) - _SHOWN_PARTS]])
        return f"documents with texts of data.validation_path do not train; they are in {len(names)} parts: {shown}"

    def _distinct_digest(self, part: int, whole: str) -> str:
        if part not in self._left_out:
            for _ in self.part_documents(part):
                pass
        left_out = self._left_out[part]
        without = f"{whole}\nwithout {left_out} documents with texts of\n{self._held_out_digest}"
        return hashlib.sha256(without.encode()).hexdigest() if left_out else whole

    @functools.cached_property
    def _held_out_digest(self) -> str:
        return self._held_out.content_digest()

    @functools.cached_property
    def _texts(self) -> frozenset[bytes]:
        """Keys of the texts that are left out, of a few bytes each whatever their lengths."""
        return frozenset(_key(document.text) for document in self._held_out.documents())


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=_KEY_BYTES).digest()
