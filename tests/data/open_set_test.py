"""Token sets in training: the same batches as from text, here or from a bucket, and nothing damaged gets through."""

import dataclasses
import functools
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import pytest

from sparsejax.config import ConfigError, DataConfig
from sparsejax.data.cache import FileDigests
from sparsejax.data.pipeline import Corpus, TrainBatches, open_corpus
from sparsejax.data.storage import StoredDirectory
from sparsejax.data.token_set import Manifest
from sparsejax.data.tokenise import tokenise
from tests.data.conftest import new_bucket, texts

SHARDS = 6
NEVER = pytest.fail


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, t5_model: Path) -> tuple[DataConfig, Path]:
    """The configuration of a corpus of two files with validation text of its own, and its token set."""
    root = tmp_path_factory.mktemp("written")
    for name, count in (("a.jsonl", 60), ("b.jsonl", 140), ("held.out", 30)):
        lines = [json.dumps({"text": f"{name} {text}"}) + "\n" for text in texts(count)]
        (root / name).write_text("".join(lines))
    config = DataConfig(
        source="jsonl",
        path=f"{root}/*.jsonl",
        validation_path=f"{root}/held.out",
        validation_fraction=0.1,
        text_field="text",
        tokenizer="sentencepiece",
        tokenizer_path=str(t5_model),
        vocab_size=0,
        sequence_length=16,
        unique_tokens=0,
        reshuffle_each_epoch=True,
        cache_dir=str(root / "cache"),
    )
    flags = {"shards": SHARDS, "process_id": 0, "num_processes": 1, "wait": 0}
    tokenise(config, str(root / "set"), **flags, notice=lambda line: None)
    return config, root / "set"


@pytest.fixture
def copy(written: tuple[DataConfig, Path], tmp_path: Path) -> Path:
    """A set that may be damaged."""
    return Path(shutil.copytree(written[1], tmp_path / "set"))


@pytest.fixture
def bucket(copy: Path) -> StoredDirectory:
    """The set where nothing can be memory-mapped."""
    directory = StoredDirectory(new_bucket())
    for path in copy.rglob("*.*"):
        directory.write_file(path.relative_to(copy).as_posix(), path)
    return directory


def opened(
    written: tuple[DataConfig, Path], path: Path | str, cache: Path, notice: Callable[[str], None], **changes: object
) -> Corpus:
    fields = {"source": "tokens", "path": str(path), "validation_path": "", "tokenizer_path": "", **changes}
    return open_corpus(dataclasses.replace(written[0], cache_dir=str(cache), **fields), notice)


def batches(corpus: Corpus, unique_tokens: int = 0) -> TrainBatches:
    return TrainBatches(
        corpus.train,
        sequence_length=16,
        unique_tokens=unique_tokens,
        batch_size=8,
        epochs=2,
        steps=0,
        seed=0,
        reshuffle_each_epoch=True,
        filled=(),
        notice=lambda line: None,
    )


def test_a_set_trains_as_its_text_does(
    written: tuple[DataConfig, Path], bucket: StoredDirectory, tmp_path: Path
) -> None:
    text = open_corpus(written[0], [].append)
    for name, path in (("here", written[1]), ("there", bucket.location)):
        found = opened(written, path, tmp_path / name, [].append)
        assert (found.data_digest, found.tokenizer.digest) == (text.data_digest, text.tokenizer.digest)
        assert found.tokenizer.encode("the active blocks") == text.tokenizer.encode("the active blocks")
        for split in ("train", "validation"):
            ours, theirs = getattr(found, split), getattr(text, split)
            np.testing.assert_array_equal(ours.ids[:], theirs.ids)
            assert msgspec.structs.replace(ours.meta, sha256="") == msgspec.structs.replace(theirs.meta, sha256="")
        ours, theirs = batches(found), batches(text)
        assert ours.steps == theirs.steps > 10
        for i in range(ours.steps):
            np.testing.assert_array_equal(ours.batch(i), theirs.batch(i))


def test_a_bucket_is_copied_once_and_only_as_far_as_the_budget_reaches(
    written: tuple[DataConfig, Path], bucket: StoredDirectory, tmp_path: Path
) -> None:
    said: list[str] = []
    whole = open_corpus(written[0], [].append)
    budget = whole.train.tokens // 3
    found = opened(written, bucket.location, tmp_path / "cache", said.append, unique_tokens=budget)
    shards = sorted(path.name for path in (tmp_path / "cache/sets").rglob("train-*.bin"))
    assert shards == [f"train-{n:05d}-of-00006.bin" for n in range(len(shards))] and 2 <= len(shards) <= 3
    assert len(said) == 1 and "copying" in said[0] and f"of {bucket.location}" in said[0]
    assert found.train.tokens == whole.train.tokens > found.train.ids.size >= budget
    ours, theirs = batches(found, budget), batches(whole, budget)
    for i in range(ours.steps):
        np.testing.assert_array_equal(ours.batch(i), theirs.batch(i))
    before = len(said)
    opened(written, bucket.location, tmp_path / "cache", said.append, unique_tokens=budget)
    assert len(said) == before
    opened(written, bucket.location, tmp_path / "cache", said.append)
    assert f"copying {SHARDS - len(shards)} of {SHARDS + 1} shards" in said[before]


@pytest.mark.usefixtures("settled")
def test_shards_here_are_digested_once(
    written: tuple[DataConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    opened(written, written[1], tmp_path, said.append)
    assert len(said) == 1 and said[0].startswith("checking the shards in ")
    monkeypatch.setattr("sparsejax.data.open_set.read_content", NEVER)
    opened(written, written[1], tmp_path, NEVER)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


SHARD = "shards/train-00003-of-00006.bin"
DAMAGE = {
    "one bit": (SHARD, _flip, f"the checksum of {SHARD}"),
    "cut short": (SHARD, lambda path: os.truncate(path, path.stat().st_size - 2), "bytes instead of"),
    "gone": (SHARD, Path.unlink, "is missing"),
    "validation": ("shards/validation-00000-of-00001.bin", _flip, "the checksum of shards/validation"),
    "no manifest": ("manifest.json", Path.unlink, "is no finished token set, manifest.json is not there"),
    "half a manifest": ("manifest.json", lambda path: os.truncate(path, 99), "manifest.json: is not JSON"),
    "another format": (
        "manifest.json",
        lambda path: path.write_text('{"format": 0}'),
        "is not of format 'token set 1'",
    ),
    "no tokenizer": ("tokenizer/tokenizer.model", Path.unlink, "holds no usable tokenizer"),
    "another tokenizer": ("tokenizer/tokenizer.model", _flip, "tokenizer"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_set_is_one_line(damage: str, written: tuple[DataConfig, Path], copy: Path, tmp_path: Path) -> None:
    name, break_file, message = DAMAGE[damage]
    opened(written, copy, tmp_path / "cache", [].append)
    break_file(copy / name)
    with pytest.raises(ConfigError) as error:
        opened(written, copy, tmp_path / "cache", [].append)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["one bit", "gone"])
def test_a_damaged_bucket_is_one_line_and_leaves_no_copy(
    damage: str, written: tuple[DataConfig, Path], copy: Path, tmp_path: Path
) -> None:
    DAMAGE[damage][1](copy / SHARD)
    bucket = StoredDirectory(new_bucket())
    for path in copy.rglob("*.*"):
        bucket.write_file(path.relative_to(copy).as_posix(), path)
    with pytest.raises(ConfigError) as error:
        opened(written, bucket.location, tmp_path / "cache", [].append)
    assert SHARD in str(error.value) and "\n" not in str(error.value)
    assert not list((tmp_path / "cache").rglob(f"*{Path(SHARD).name}*"))


@pytest.mark.parametrize("name", [SHARD, "tokenizer/tokenizer.model", "tokenizer/tokenizer_meta.json"])
@pytest.mark.parametrize("damage", [lambda path: _flip(path), Path.unlink, lambda path: os.truncate(path, 3)])
def test_a_damaged_copy_is_made_anew(
    name: str,
    damage: Callable[[Path], None],
    written: tuple[DataConfig, Path],
    bucket: StoredDirectory,
    tmp_path: Path,
) -> None:
    opened(written, bucket.location, tmp_path / "cache", [].append)
    (copy,) = (tmp_path / "cache/sets").iterdir()
    damage(copy / name)
    said: list[str] = []
    found = opened(written, bucket.location, tmp_path / "cache", said.append)
    assert (copy / name).read_bytes() == (written[1] / name).read_bytes()
    assert found.train.ids[:].tolist() == opened(written, written[1], tmp_path, [].append).train.ids[:].tolist()
    assert any("copying" in line for line in said) == (name == SHARD)


def _hostile(change: Callable[[dict], object], copy: Path) -> None:
    """Change the manifest, and leave out the digest that it has of itself, as a set of before would."""
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["check"]
    changed = change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest if changed is None else changed))


def _put(*path: str | int, value: object) -> Callable[[dict], None]:
    """Put a value at a place of the manifest."""

    def change(manifest: dict) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = value

    return change


def _deep(copy: Path) -> None:
    (copy / "manifest.json").write_text('{"format": ' + "[" * 100_000 + "]" * 100_000 + "}")


@pytest.mark.parametrize("name", ["../../x.bin", "../x.bin", "{tmp}/x.bin", "shards/../../x.bin", "shards/link.bin"])
@pytest.mark.parametrize("there", [False, True])
def test_a_set_reads_and_writes_in_its_folder_only(
    name: str,
    there: bool,
    written: tuple[DataConfig, Path],
    copy: Path,
    bucket: StoredDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though what the name leads to is there, and is what the manifest says."""
    name = name.format(tmp=tmp_path)
    content = (copy / SHARD).read_bytes()
    _hostile(_put("splits", "train", "shards", 3, "file", value=name), copy)
    if there:
        monkeypatch.setattr(StoredDirectory, "copy_to", _serving(name, content))
        bucket.write("manifest.json", (copy / "manifest.json").read_bytes())
    else:
        (tmp_path / "far.bin").write_bytes(content)
        target = copy / name
        if name.endswith("link.bin"):
            target.symlink_to(tmp_path / "far.bin")
        else:
            target.write_bytes(content)
    before = set(tmp_path.parent.rglob("x.bin"))
    if there and name.endswith("link.bin"):
        (tmp_path / "elsewhere").mkdir()
        (root,) = (tmp_path / "cache/sets" / hashlib.sha256(bucket.read("manifest.json")).hexdigest()[:32],)
        (root / "shards").mkdir(parents=True)
        (root / name).symlink_to(tmp_path / "elsewhere/x.bin")
    with pytest.raises(ConfigError, match=r"names the file [^\n]*, (which is not in|a link out of) its folder"):
        opened(written, bucket.location if there else copy, tmp_path / "cache", [].append)
    assert set(tmp_path.parent.rglob("x.bin")) == before


def _serving(name: str, content: bytes) -> Callable[..., str]:
    """``copy_to`` of a store that has such a name."""
    original = StoredDirectory.copy_to

    def copy_to(self: StoredDirectory, wanted: str, sink: BinaryIO) -> str:
        if wanted != name:
            return original(self, wanted, sink)
        sink.write(content)
        return hashlib.sha256(content).hexdigest()

    return copy_to


FIRST = ("splits", "train", "shards", 0)
HOSTILE = {
    **{
        name: functools.partial(_hostile, _put(*FIRST, "file", value=name))
        for name in ("../../x.bin", "/tmp/x.bin", "..", "", "a\\..\\b", "shards/../../x", "x\n", "C:x")
    },
    **{
        f"dtype {value!r}": functools.partial(_hostile, _put("dtype", value=value))
        for value in ("nonsense", "<f4", "O", 3, None, "<u4")
    },
    "a list": functools.partial(_hostile, lambda manifest: [manifest]),
    "a number": functools.partial(_hostile, lambda manifest: 3),
    "no validation": functools.partial(_hostile, lambda manifest: {**manifest, "splits": {"train": {}}}),
    "a number for a file": functools.partial(_hostile, _put(*FIRST, "file", value=3)),
    "a negative count": functools.partial(_hostile, _put(*FIRST, "tokens", value=-1)),
    "another count": functools.partial(_hostile, _put("splits", "train", "tokens", value=7)),
    "a huge count": functools.partial(_hostile, _put(*FIRST, "tokens", value=10**30)),
    "half a count": functools.partial(_hostile, _put(*FIRST, "documents", value=0.5)),
    "no digest": functools.partial(_hostile, _put(*FIRST, "sha256", value="../x")),
    "no shards": functools.partial(_hostile, _put("splits", "train", "shards", value=[])),
    "another digest of the tokenizer": functools.partial(_hostile, _put("tokenizer_digest", value="0" * 64)),
    "nested deep": _deep,
    "a byte": lambda copy: (copy / "manifest.json").write_bytes(b"\xff"),
    "empty": lambda copy: (copy / "manifest.json").write_bytes(b""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_metadata_is_one_line_and_writes_nothing_outside(
    case: str, written: tuple[DataConfig, Path], copy: Path, tmp_path: Path
) -> None:
    HOSTILE[case](copy)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ConfigError) as error:
        opened(written, copy, tmp_path / "cache", [].append)
    assert "\n" not in str(error.value)
    assert all(path.is_relative_to(tmp_path / "cache") for path in set(tmp_path.rglob("*")) - before)


def test_no_bit_of_a_manifest_changes_what_is_read(written: tuple[DataConfig, Path]) -> None:
    content = (written[1] / "manifest.json").read_bytes()
    wanted = msgspec.structs.replace(Manifest.from_json(content), check="")
    draw = random.Random(0)
    for _ in range(500):
        place = draw.randrange(len(content))
        damaged = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
        try:
            found = Manifest.from_json(damaged)
        except ConfigError as error:
            assert "\n" not in str(error)
        else:
            assert msgspec.structs.replace(found, check="") == wanted


def test_ids_that_the_vocabulary_lacks_are_refused(
    written: tuple[DataConfig, Path], copy: Path, tmp_path: Path
) -> None:
    shard = copy / SHARD
    ids = np.fromfile(shard, "<u2")
    ids[0] = 60_000
    ids.tofile(shard)
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    _hostile(_put("splits", "train", "shards", 3, "sha256", value=digest), copy)
    with pytest.raises(ConfigError, match=f"{SHARD} has the id 60000, which the set's tokenizer lacks"):
        opened(written, copy, tmp_path / "cache", [].append)


def test_a_set_of_before_its_parts_had_digests(written: tuple[DataConfig, Path], copy: Path, tmp_path: Path) -> None:
    _hostile(lambda manifest: {key: manifest[key] for key in manifest if key != "part_digests"}, copy)
    assert opened(written, copy, tmp_path, [].append).data_digest


def test_another_tokenizer_is_refused(
    written: tuple[DataConfig, Path], llama_model: Path, t5_model: Path, tmp_path: Path
) -> None:
    opened(written, written[1], tmp_path, [].append, tokenizer_path=str(t5_model))
    with pytest.raises(ConfigError, match=r"data.tokenizer=byte: .* made with data.tokenizer=sentencepiece; set that"):
        opened(written, written[1], tmp_path, [].append, tokenizer="byte")
    with pytest.raises(ConfigError, match=r"data.tokenizer_path=.*: is not the tokenizer that"):
        opened(written, written[1], tmp_path, [].append, tokenizer_path=str(llama_model))


@pytest.mark.parametrize("path", ["absent", "fsspec+memory://absent/set", "nosuch://bucket/set"])
def test_a_set_that_is_not_there(path: str, written: tuple[DataConfig, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^data.path={path.replace('+', '.')}: [^\n]+$"):
        opened(written, path, tmp_path, NEVER)


def test_digests_of_shards_are_those_of_the_manifest(written: tuple[DataConfig, Path], tmp_path: Path) -> None:
    manifest = json.loads((written[1] / "manifest.json").read_text())
    for shard in manifest["splits"]["train"]["shards"]:
        assert FileDigests(tmp_path).digest(written[1] / shard["file"]) == shard["sha256"]
