"""A document, and the two fixed keys that decide where it goes: its split and its place in the shuffled order."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

_KEY_BYTES = 8
_KEY_RANGE = 2.0**64
_PLACE_BITS = 40


class Document(NamedTuple):
    """One document of a corpus.

    Attributes:
      identity: what decides its split: its own text, or a name that outlives small edits of the text.
      text: never empty, encodable as UTF-8.
    """

    identity: bytes
    text: str

    @classmethod
    def of_text(cls, text: str) -> Document:
        """A document identified by its own text."""
        return cls(text.encode(), text)


def split_fraction(identity: bytes) -> float:
    """A number in [0, 1) that is a hash of ``identity`` alone; a document validates if it is below the fraction.

    So a document's split does not depend on its place or on the other documents, copies of a document fall into
    the same split, and the validation set of a smaller fraction is inside that of a larger one.
    """
    return int.from_bytes(_key(identity, b"split")) / _KEY_RANGE


def address(part: int, place: int) -> int:
    """The number that a document is known by: its part of the source, and its place among those of its split there.

    So it is known without reading any other part, and hosts that read a part each agree on all addresses.
    """
    return part << _PLACE_BITS | place


def order_key(address: int) -> int:
    """The 64-bit sort key that shuffles the documents of a split.

    A hash of the address and nothing else: the order is the same on every machine and in every library version,
    and equal documents do not end up side by side (they would under a hash of the content).
    """
    return int.from_bytes(_key(address.to_bytes(8), b"order"))


def _key(data: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_KEY_BYTES, person=b"sparsejax" + purpose).digest()
