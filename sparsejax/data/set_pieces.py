"""Pieces of a token set: one part of the corpus, tokenised and sorted, with marks where each shard's section begins.

Of a part and a split with documents there are ``pieces/<part>-<split>.ids``, the ids in order of the documents' keys,
and ``.docs``, pairs of little-endian uint64 (order key, number of ids). ``pieces/<part>.json``, written last, tells how
far the section of each shard reaches in both. A piece says all that a part contributes: shards are made from pieces
alone, by whichever process, in whichever order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sparsejax.data.shuffled_documents import ShuffledDocuments, append_tokenised, id_dtype
from sparsejax.data.splits import SplitCorpus
from sparsejax.data.storage import StoredDirectory
from sparsejax.data.token_set import PIECES
from sparsejax.data.tokenizer import Tokenizer

_DOCUMENT_BYTES = 16


@dataclass(frozen=True)
class Piece:
    """What a part contributes to one split, cut for N shards.

    Attributes:
      text_bytes: bytes of UTF-8 text.
      document_ends: ``[N]``; documents up to the end of each shard's section.
      token_ends: ``[N]``; ids up to there.
    """

    text_bytes: int
    document_ends: tuple[int, ...]
    token_ends: tuple[int, ...]

    @property
    def documents(self) -> int:
        """Number of documents."""
        return self.document_ends[-1]

    @property
    def tokens(self) -> int:
        """Number of ids."""
        return self.token_ends[-1]


@dataclass(frozen=True)
class PartPieces:
    """What is known of one part.

    Attributes:
      digest: of the part of the corpus.
      splits: its piece of each split.
    """

    digest: str
    splits: dict[str, Piece]


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
        pieces[split] = Piece(found.text_bytes, document_ends, tuple(tokens[list(document_ends)].tolist()))
        if document_ends[-1]:
            documents = np.stack([found.keys, found.lengths.astype(np.uint64)], axis=1).astype("<u8")
            directory.write(_name(number, f"-{split}.docs"), documents.tobytes())
            directory.write_file(_name(number, f"-{split}.ids"), ids)
        ids.unlink()
    written = PartPieces(part.source.part_digest(part.number), pieces)
    directory.write(_name(number, ".json"), json.dumps(asdict(written)).encode())
    return written


def read_pieces(directory: StoredDirectory, number: int) -> PartPieces:
    """What is known of part ``number``, which has been written."""
    fields = json.loads(directory.read(_name(number, ".json")))
    splits = {
        split: Piece(piece["text_bytes"], tuple(piece["document_ends"]), tuple(piece["token_ends"]))
        for split, piece in fields["splits"].items()
    }
    return PartPieces(fields["digest"], splits)


def written_parts(sizes: Mapping[str, int], parts: int) -> list[int]:
    """The parts whose pieces are whole, from the sizes of the files of the set."""
    return [number for number in range(parts) if _name(number, ".json") in sizes]


def read_section(
    directory: StoredDirectory, number: int, split: str, piece: Piece, shard: int, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """One shard's section of a piece: ``[D, 2]`` uint64 keys and lengths, and its ids.

    Raises ``OSError`` if the stored piece is shorter than it was.
    """
    itemsize = np.dtype(dtype).itemsize
    sections = []
    for suffix, ends, size in (("docs", piece.document_ends, _DOCUMENT_BYTES), ("ids", piece.token_ends, itemsize)):
        start = ends[shard - 1] if shard else 0
        name, length = _name(number, f"-{split}.{suffix}"), (ends[shard] - start) * size
        content = directory.read_range(name, start * size, length) if length else b""
        if len(content) != length:
            raise OSError(f"{name} is cut short; delete {_name(number, '.json')} and run the command again")
        sections.append(content)
    return np.frombuffer(sections[0], "<u8").reshape(-1, 2), np.frombuffer(sections[1], dtype)


def _section_ends(shards: int) -> np.ndarray:
    """The smallest keys of shards 1 to N - 1: ``ceil(s 2^64 / N)``."""
    return np.array([-(-(shard << 64) // shards) for shard in range(1, shards)], np.uint64)


def _name(number: int, suffix: str) -> str:
    return f"{PIECES}/{number:05d}{suffix}"
