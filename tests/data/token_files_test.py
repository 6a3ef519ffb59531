"""Token files: what is in them, in which order, and what happens to broken ones."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sparsejax.config import ConfigError, DataConfig
from sparsejax.data import shuffled_documents
from sparsejax.data.cache import FileDigests, file_sha256
from sparsejax.data.document import address, order_key
from sparsejax.data.splits import SPLITS, TRAIN, VALIDATION, split_corpus
from sparsejax.data.storage import StoredDirectory
from sparsejax.data.token_files import TokenFile, open_token_files
from sparsejax.data.tokenizer import ByteTokenizer, Tokenizer
from tests.data.conftest import new_bucket


class WideTokenizer(ByteTokenizer):
    """Bytes with the ids of a vocabulary that needs four bytes an id."""

    vocab_size = 2**16
    digest = "wide"


def built(
    config: DataConfig, directory: Path, said: list[str], tokenizer: Tokenizer | None = None
) -> dict[str, TokenFile]:
    digests = FileDigests(directory / "digests")
    corpus = split_corpus(config, digests)
    return open_token_files(directory / "tokens", corpus, tokenizer or ByteTokenizer(), digests, said.append)


def documents_of(file: TokenFile) -> list[str]:
    end = ByteTokenizer.end_id
    pieces = np.split(file.ids, np.flatnonzero(file.ids == end) + 1)
    return [bytes(piece[:-1].astype(np.uint8)).decode() for piece in pieces if piece.size]


def test_every_document_is_there_once_in_the_shuffled_order(data_config, tmp_path: Path) -> None:
    corpus = split_corpus(data_config(), FileDigests(tmp_path))
    files = built(data_config(), tmp_path, [])
    for split in SPLITS:
        texts = [document.text for found, document in corpus.documents() if found == split]
        expected = [texts[i] for i in sorted(range(len(texts)), key=order_key)]
        assert documents_of(files[split]) == expected != texts
        meta = files[split].meta
        assert meta.documents == len(texts) and meta.text_bytes == sum(len(text.encode()) for text in texts)
        assert meta.tokens == meta.text_bytes + meta.documents == files[split].tokens == files[split].ids.size


def test_documents_of_many_files_are_shuffled_by_file_and_place(data_config, tmp_path: Path) -> None:
    for number in range(3):
        lines = [json.dumps({"text": f"{number} {place}"}) + "\n" for place in range(20)]
        (tmp_path / f"{number}.jsonl").write_text("".join(lines))
    files = built(data_config(path=f"{tmp_path}/[0-2].jsonl"), tmp_path, [])
    seen = {split: documents_of(files[split]) for split in SPLITS}
    for split in SPLITS:
        expected = []
        for number in range(3):
            members = [text for text in (f"{number} {place}" for place in range(20)) if text in seen[split]]
            expected += [(order_key(address(number, place)), text) for place, text in enumerate(members)]
        assert seen[split] == [text for _, text in sorted(expected)]
    assert len(seen[TRAIN]) + len(seen[VALIDATION]) == 60


def test_copying_in_many_groups_changes_nothing(data_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = built(data_config(), tmp_path / "whole", [])
    for name, value in {"_COPY_TOKENS": 100, "_BATCH_CHARACTERS": 50, "_BATCH_DOCUMENTS": 3}.items():
        monkeypatch.setattr(shuffled_documents, name, value)
    pieces = built(data_config(), tmp_path / "pieces", [])
    for split in SPLITS:
        assert pieces[split].meta == whole[split].meta
        np.testing.assert_array_equal(pieces[split].ids, whole[split].ids)


def test_width_of_an_id_follows_the_vocabulary(data_config, tmp_path: Path) -> None:
    narrow = built(data_config(), tmp_path, [])[TRAIN]
    wide = built(data_config(), tmp_path, [], WideTokenizer())[TRAIN]
    assert narrow.ids.dtype == np.uint16 and wide.ids.dtype == np.uint32
    np.testing.assert_array_equal(narrow.ids, wide.ids)


@pytest.mark.parametrize("given", [257, 2**16, 2**40])
def test_ids_outside_the_vocabulary_are_one_line(given: int, data_config, tmp_path: Path) -> None:
    """Of which some would fit the files, and be read as other ids or as none."""

    class Straying(ByteTokenizer):
        def encode_documents(self, texts: list[str]) -> list[list[int]]:
            return [[given, *ids] for ids in super().encode_documents(texts)]

    with pytest.raises(ConfigError, match=f"data.tokenizer: gives the id {given}, its vocabulary ends before 257"):
        built(data_config(), tmp_path, [], Straying())


def test_built_once_and_read_only(data_config, tmp_path: Path) -> None:
    said: list[str] = []
    built(data_config(), tmp_path, said)
    files = built(data_config(), tmp_path, said)
    assert len(said) == 1 and said[0].startswith("tokenising the corpus")
    assert not files[TRAIN].ids.flags.writeable
    (entry,) = (tmp_path / "tokens").iterdir()
    assert sorted(path.name for path in entry.iterdir()) == ["meta.json", "train.bin", "validation.bin"]
    assert file_sha256(entry / "train.bin") == files[TRAIN].meta.sha256


@pytest.mark.usefixtures("settled")
def test_changed_text_of_equal_size_and_time_is_tokenised_anew(data_config, text_corpus: Path, tmp_path: Path) -> None:
    assert any("weights" in text for text in documents_of(built(data_config(), tmp_path, [])[TRAIN]))
    times = text_corpus.stat()
    time.sleep(0.02)  # a tick of the file system's clock
    text_corpus.write_text(text_corpus.read_text().replace("weights", "WEIGHTS"))
    os.utime(text_corpus, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = built(data_config(), tmp_path, [])
    assert any("WEIGHTS" in text for text in documents_of(after[TRAIN]))
    assert not any("weights" in text for split in SPLITS for text in documents_of(after[split]))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_entry_of_before_it_had_a_digest_of_itself_is_taken(data_config, tmp_path: Path) -> None:
    said: list[str] = []
    before = built(data_config(), tmp_path, said)
    (meta,) = (tmp_path / "tokens").rglob("meta.json")
    fields = json.loads(meta.read_text())
    del fields["check"]
    meta.write_text(json.dumps(fields))
    assert built(data_config(), tmp_path, said)[TRAIN].meta == before[TRAIN].meta and len(said) == 1


DAMAGE = {
    "one bit": ("train.bin", _flip, "the checksum of train.bin differs"),
    "cut short": ("validation.bin", lambda path: os.truncate(path, path.stat().st_size - 1), "bytes instead of"),
    "gone": ("train.bin", Path.unlink, "No such file"),
    "emptied": ("validation.bin", lambda path: os.truncate(path, 0), "has 0 bytes instead of"),
    "no meta": ("meta.json", Path.unlink, "No such file"),
    "another count": (
        "meta.json",
        lambda path: path.write_text(path.read_text().replace('"documents": 1', '"documents": 2')),
        "meta.json: is not what was written, its digest differs",
    ),
    "half a meta": ("meta.json", lambda path: os.truncate(path, 40), "meta.json: is not JSON"),
    "an empty meta": ("meta.json", lambda path: path.write_text("{}"), "meta.json: holds another value"),
    "a meta that is no text": ("meta.json", lambda path: path.write_bytes(b"\xff"), "meta.json: is not UTF-8"),
    "a deep meta": ("meta.json", lambda path: path.write_text("[" * 100_000), "meta.json: "),
    "another type": (
        "meta.json",
        lambda path: path.write_text(path.read_text().replace("<u2", "O")),
        "meta.json: holds another value",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_entry_is_rebuilt_and_said(damage: str, data_config, tmp_path: Path) -> None:
    name, break_file, reason = DAMAGE[damage]
    said: list[str] = []
    before = {split: np.array(file.ids) for split, file in built(data_config(), tmp_path, said).items()}
    (entry,) = (tmp_path / "tokens").iterdir()
    break_file(entry / name)
    after = built(data_config(), tmp_path, said)
    assert "is corrupt" in said[1] and reason in said[1] and said[2].startswith("tokenising")
    for split in SPLITS:
        np.testing.assert_array_equal(after[split].ids, before[split])


def test_two_processes_building_at_once_both_read_a_valid_entry(text_corpus: Path, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from sparsejax.data.cache import FileDigests
from sparsejax.data.paths import PathSetting
from sparsejax.data.sources import make_source
from sparsejax.data.splits import SplitCorpus
from sparsejax.data.token_files import open_token_files
from sparsejax.data.tokenizer import ByteTokenizer
root = Path({str(tmp_path)!r}, "cache")
print("ready", flush=True)
input()
digests = FileDigests(root / "digests")
source = make_source("jsonl", PathSetting("data.path", {str(text_corpus)!r}), "text", digests)
files = open_token_files(root / "tokens", SplitCorpus(source, None, 0.2, ""), ByteTokenizer(), digests, print)
print(files["train"].meta.sha256)
"""
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len({lines[-1] for lines in outputs}) == 1
    assert len(list((tmp_path / "cache/tokens").iterdir())) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"validation_fraction": 1e-9}, "data.validation_fraction=1e-09: none of the 120 documents fell into the val"),
        ({"validation_fraction": 1 - 1e-9}, "fell into the train split"),
    ],
)
def test_an_empty_split_is_an_error(fields: dict, message: str, data_config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        built(data_config(**fields), tmp_path, [])
    assert message in str(error.value)


def test_a_corpus_without_text_is_an_error(data_config, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"text": ""}\n')
    with pytest.raises(ConfigError, match=r"data.path=.*empty.jsonl: the corpus has no text"):
        built(data_config(path=str(empty)), tmp_path, [])
    with pytest.raises(ConfigError, match=r"data.validation_path.*: has no text"):
        built(data_config(validation_path=str(empty)), tmp_path, [])


def test_splits_are_named_as_the_files_are(data_config, tmp_path: Path) -> None:
    files = built(data_config(), tmp_path, [])
    assert [files[split].split for split in (TRAIN, VALIDATION)] == ["train", "validation"]


@pytest.mark.usefixtures("settled")
def test_changed_text_of_equal_size_in_a_bucket(data_config, text_corpus: Path, tmp_path: Path) -> None:
    bucket = StoredDirectory(new_bucket())
    for old, new in (("weights", "weights"), ("weights", "WEIGHTS"), ("weights", "weights")):
        bucket.write("corpus.jsonl", text_corpus.read_bytes().replace(old.encode(), new.encode()))
        found = documents_of(built(data_config(path=f"{bucket.location}/corpus.jsonl"), tmp_path, [])[TRAIN])
        assert any(new in text for text in found)
