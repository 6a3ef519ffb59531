"""The manifest of a token set, and the sections that its pieces are cut into."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sparsejax.config import ConfigError, DataConfig
from sparsejax.data.cache import FileDigests
from sparsejax.data.document import order_key
from sparsejax.data.set_pieces import PartPieces, read_pieces, read_section, write_pieces
from sparsejax.data.splits import TRAIN, VALIDATION, split_corpus
from sparsejax.data.storage import StoredDirectory
from sparsejax.data.token_set import FORMAT, Manifest, SetSplit, Shard, Splits, shard_name
from sparsejax.data.tokenizer import ByteTokenizer
from tests.data.conftest import texts

SHARDS = 7


def test_a_manifest_comes_back() -> None:
    digest = "0123456789abcdef" * 4
    shards = (Shard(shard_name(TRAIN, 0, 2), 5, 1, digest), Shard(shard_name(TRAIN, 1, 2), 0, 0, digest))
    split = SetSplit(5, 20, 1, shards)
    manifest = Manifest(FORMAT, "data", "byte", "tokenizer", "<u4", Splits(split, split), ("a", "b"))
    found = Manifest.from_json(manifest.to_json())
    assert msgspec.structs.replace(found, check="") == manifest and manifest.itemsize == 4
    assert shards[1].file == "shards/train-00001-of-00002.bin"


@pytest.fixture
def pieces(data_config: Callable[..., DataConfig], tmp_path: Path) -> tuple[StoredDirectory, PartPieces]:
    """The pieces of 120 documents, all for training."""
    (tmp_path / "held.jsonl").write_text('{"text": "held out"}\n')
    config = data_config(validation_path=str(tmp_path / "held.jsonl"))
    corpus = split_corpus(config, FileDigests(tmp_path / "digests"))
    directory = StoredDirectory(str(tmp_path / "set"))
    (tmp_path / "scratch").mkdir()
    shards = {TRAIN: SHARDS, VALIDATION: 1}
    found = write_pieces(directory, corpus, 0, ByteTokenizer(), shards, tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []
    return directory, found


def test_a_document_is_in_the_section_its_key_says(pieces: tuple[StoredDirectory, PartPieces]) -> None:
    directory, found = pieces
    assert msgspec.structs.replace(read_pieces(directory, 0, {TRAIN: SHARDS, VALIDATION: 1}), check="") == found
    piece = found.splits[TRAIN]
    keys = {order_key(place): text for place, text in enumerate(texts(120))}
    assert piece.documents == 120 and piece.text_bytes == sum(len(text.encode()) for text in texts(120))
    seen = 0
    for shard in range(SHARDS):
        documents, ids = read_section(directory, 0, TRAIN, piece, shard, "<u2")
        members = sorted(key for key in keys if key * SHARDS >> 64 == shard)
        assert documents[:, 0].tolist() == members
        expected = [[*keys[key].encode(), ByteTokenizer.end_id] for key in members]
        assert documents[:, 1].tolist() == [len(one) for one in expected]
        assert ids.dtype == np.uint16 and ids.tolist() == [token for one in expected for token in one]
        seen += len(members)
    assert seen == 120


def test_a_split_without_documents_takes_no_files(pieces: tuple[StoredDirectory, PartPieces]) -> None:
    directory, found = pieces
    assert found.splits[VALIDATION].documents == found.splits[VALIDATION].tokens == 0
    assert set(directory.sizes()) == {"pieces/00000.json", "pieces/00000-train.docs", "pieces/00000-train.ids"}
    documents, ids = read_section(directory, 0, VALIDATION, found.splits[VALIDATION], 0, "<u2")
    assert documents.shape == (0, 2) and ids.size == 0


def test_a_short_piece_is_an_error(pieces: tuple[StoredDirectory, PartPieces]) -> None:
    directory, found = pieces
    directory.write("pieces/00000-train.ids", directory.read("pieces/00000-train.ids")[:-2])
    with pytest.raises(OSError, match=r"pieces/00000-train.ids is cut short; delete pieces/00000.json and run"):
        read_section(directory, 0, TRAIN, found.splits[TRAIN], SHARDS - 1, "<u2")


@pytest.mark.parametrize("suffix", ["-train.ids", "-train.docs"])
def test_a_bit_of_a_piece_is_an_error(suffix: str, pieces: tuple[StoredDirectory, PartPieces]) -> None:
    directory, found = pieces
    content = bytearray(directory.read(f"pieces/00000{suffix}"))
    content[1] ^= 1
    directory.write(f"pieces/00000{suffix}", bytes(content))
    with pytest.raises(OSError, match=r"is not what was written; delete pieces/00000.json and run"):
        for shard in range(SHARDS):
            read_section(directory, 0, TRAIN, found.splits[TRAIN], shard, "<u2")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b'{"digest": 1}', b'{"digest": "", "splits": {"train": {}}}', b"[" * 100_000],
)
def test_odd_descriptions_of_pieces_are_one_line(content: bytes, pieces: tuple[StoredDirectory, PartPieces]) -> None:
    directory, _ = pieces
    whole = json.loads(directory.read("pieces/00000.json"))
    del whole["check"]
    for ends in ([2, 1], [], [0] * (SHARDS + 1), [-1] * SHARDS, ["a"] * SHARDS):
        whole["splits"]["train"]["token_ends"] = ends
        for damaged in (content, json.dumps(whole).encode()):
            directory.write("pieces/00000.json", damaged)
            with pytest.raises(ConfigError, match=r"^[^\n]*pieces/00000.json: [^\n]+$"):
                read_pieces(directory, 0, {TRAIN: SHARDS, VALIDATION: 1})
