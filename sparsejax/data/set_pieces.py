"""Pieces of a token set: one part of the corpus, tokenised and sorted, with marks where each shard's section begins.

Of a part and a split with documents there are ``pieces/<part>-<split>.ids``, the ids in order of the documents' keys,
and ``.docs``, pairs of little-endian uint64 (order key, number of ids). ``pieces/<part>.json``, written last, tells how
far the section of each shard reaches in both, and its digest. A piece says all that a part contributes: shards are
made from pieces alone, by whichever process, in whichever order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from sparsejax.config import ConfigError
from sparsejax.data.sealed import Sealed, read_sealed, sealed_json
from sparsejax.data.shuffled_documents import ShuffledDocuments, append_tokenised, id_dtype
from sparsejax.data.splits import SPLITS, TRAIN, VALIDATION, SplitCorpus
from sparsejax.data.storage import StoredDirectory
from sparsejax.data.token_set import PIECES, Count, Sha256
from sparsejax.data.tokenizer import Tokenizer

_DOCUMENT_BYTES = 16
_CHUNK = 1 << 22
_AGAIN = "run the command again"


class Piece(msgspec.Struct, frozen=True):
    """The piece of one part in one split, cut for N shards.

    Attributes:
      text_bytes: bytes of UTF-8 text.
      document_ends: ``[N]``; documents up to the end of each shard's section.
      token_ends: ``[N]``; ids up to there.
      sha256: ``[N]``; of each section, its documents and then its ids; empty in pieces of before they were kept.
    """

    text_bytes: Count
    document_ends: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)]
    token_ends: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)]
    sha256: tuple[Sha256, ...] = ()

    def __post_init__(self) -> None:
        """Raises ``ValueError`` for ends that are not in order, or not as many here as there."""
        for ends in (self.document_ends, self.token_ends):
            if len(ends) != len(self.document_ends) or list(ends) != sorted(ends):
                raise ValueError("sections do not follow one another")
        if self.sha256 and len(self.sha256) != len(self.document_ends):
            raise ValueError("not one digest for each section")

    @property
    def documents(self) -> int:
        """Number of documents."""
        return self.document_ends[-1]

    @property
    def tokens(self) -> int:
        """Number of ids."""
        return self.token_ends[-1]


class SplitPieces(msgspec.Struct, frozen=True):
    """The pieces of one part, by the name of the split."""

    train: Piece
    validation: Piece

    def __getitem__(self, split: str) -> Piece:
        return {TRAIN: self.train, VALIDATION: self.validation}[split]


class PartPieces(Sealed, frozen=True):
    """Facts of one part.

    Attributes:
      digest: of the part of the corpus.
      splits: its piece of each split.
    """

    digest: str
    splits: SplitPieces


def write_pieces(
    directory: StoredDirectory,
    corpus: SplitCorpus,
    number: int,
    tokenizer: Tokenizer,
    shards: Mapping[str, int],
    scratch: Path,
) -> PartPieces:
    """Tokenises part ``number`` of the corpus and stores its pieces.

    Args:
      directory: the set.
      corpus: the documents.
      number: index into ``corpus.parts``.
      tokenizer: turns them into ids.
      shards: N of each split.
      scratch: an empty local directory with room for twice the ids of the part.
    """
    part, dtype = corpus.parts[number], id_dtype(tokenizer)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(ShuffledDocuments(scratch / f"{split}.scratch", dtype)) for split in shards
        }
        for writer in writers.values():
            writer.start_part(part.number)
        append_tokenised(corpus.part_documents(part), tokenizer, writers)
    pieces = {}
    for split, writer in writers.items():
        ids = scratch / f"{split}.ids"
        found = writer.shuffle_into(ids)
        ends = np.searchsorted(found.keys, _section_ends(shards[split]), side="left")
        tokens = np.concatenate([[0], np.cumsum(found.lengths)])
        document_ends = (*ends.tolist(), len(found.keys))
        token_ends = tuple(tokens[list(document_ends)].tolist())
        documents = np.stack([found.keys, found.lengths.astype(np.uint64)], axis=1).astype("<u8")
        digests = _section_digests(documents, document_ends, ids, token_ends, np.dtype(dtype).itemsize)
        pieces[split] = Piece(found.text_bytes, document_ends, token_ends, digests)
        if document_ends[-1]:
            directory.write(_name(number, f"-{split}.docs"), documents.tobytes())
            directory.write_file(_name(number, f"-{split}.ids"), ids)
        ids.unlink()
    # Asked for behind the reading, where it costs nothing more; a part that changed meanwhile has none.
    written = PartPieces(part.source.part_digest(part.number), SplitPieces(**pieces))
    directory.write(_name(number, ".json"), sealed_json(written))
    return written


def read_pieces(directory: StoredDirectory, number: int, shards: Mapping[str, int]) -> PartPieces:
    """Read the facts of part ``number``, which has been written for N shards of each split.

    Raises:
      ConfigError: it is damaged.
    """
    name, fix = _name(number, ".json"), f"delete it and {_AGAIN}"
    where = f"{directory.location}/{name}"
    found = read_sealed(directory.read(name), PartPieces, name=where, fix=fix)
    if any(len(found.splits[split].document_ends) != shards[split] for split in SPLITS):
        raise ConfigError(f"{where}: is cut for another number of shards; {fix}")
    return found


def written_parts(sizes: Mapping[str, int], parts: int) -> list[int]:
    """The parts whose pieces are whole, from the sizes of the files of the set."""
    return [number for number in range(parts) if _name(number, ".json") in sizes]


def read_section(
    directory: StoredDirectory, number: int, split: str, piece: Piece, shard: int, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """One shard's section of a piece: ``[D, 2]`` uint64 keys and lengths, and its ids.

    Raises ``OSError`` if the stored piece is not what was written.
    """
    itemsize = np.dtype(dtype).itemsize
    sections = []
    damaged = f"delete {_name(number, '.json')} and {_AGAIN}"
    for suffix, ends, size in (("docs", piece.document_ends, _DOCUMENT_BYTES), ("ids", piece.token_ends, itemsize)):
        start = ends[shard - 1] if shard else 0
        name, length = _name(number, f"-{split}.{suffix}"), (ends[shard] - start) * size
        content = directory.read_range(name, start * size, length) if length else b""
        if len(content) != length:
            raise OSError(f"{name} is cut short; {damaged}")
        sections.append(content)
    if piece.sha256 and hashlib.sha256(b"".join(sections)).hexdigest() != piece.sha256[shard]:
        raise OSError(f"{name} or its .docs is not what was written; {damaged}")
    return np.frombuffer(sections[0], "<u8").reshape(-1, 2), np.frombuffer(sections[1], dtype)


def _section_digests(
    documents: np.ndarray, document_ends: Sequence[int], ids: Path, token_ends: Sequence[int], itemsize: int
) -> tuple[str, ...]:
    """sha256 of every section: its pairs, then its ids."""
    found, first, start = [], 0, 0
    with ids.open("rb") as file:
        for last, end in zip(document_ends, token_ends, strict=True):
            digest = hashlib.sha256(documents[first:last].tobytes())
            left = (end - start) * itemsize
            while left:
                chunk = file.read(min(left, _CHUNK))
                digest.update(chunk)
                left -= len(chunk)
            found.append(digest.hexdigest())
            first, start = last, end
    return tuple(found)


def _section_ends(shards: int) -> np.ndarray:
    """The smallest keys of shards 1 to N - 1: ``ceil(s 2^64 / N)``."""
    return np.array([-(-(shard << 64) // shards) for shard in range(1, shards)], np.uint64)


def _name(number: int, suffix: str) -> str:
    return f"{PIECES}/{number:05d}{suffix}"
