"""Token sets: the same bytes as a token file, whatever the number of processes, shards, restarts and accidents."""

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sparsejax.config import ConfigError, DataConfig
from sparsejax.data import set_pieces, tokenise
from sparsejax.data.pipeline import open_corpus
from sparsejax.data.splits import SPLITS, TRAIN, VALIDATION
from sparsejax.data.storage import StoredDirectory
from sparsejax.data.token_set import MANIFEST, Manifest
from sparsejax.data.tokenise import Outcome
from sparsejax.data.verify_set import verify_set
from tests.data.conftest import new_bucket, texts

FILES = 5


@pytest.fixture
def config(data_config: Callable[..., DataConfig], tmp_path: Path) -> DataConfig:
    """Five files of 1 to 41 documents; some validate."""
    for number in range(FILES):
        lines = [json.dumps({"text": f"{number} {text}"}) + "\n" for text in texts(1 + 10 * number)]
        (tmp_path / f"part-{number}.jsonl").write_text("".join(lines))
    return data_config(path=f"{tmp_path}/part-*.jsonl")


def run(config: DataConfig, out: Path | str, said: list[str] | None = None, **changes: object) -> Outcome:
    settings = {"shards": 3, "process_id": 0, "num_processes": 1, "wait": 0} | changes
    return tokenise.tokenise(config, str(out), **settings, notice=(said if said is not None else []).append)


def ids_of(out: Path | str, split: str) -> np.ndarray:
    """All ids of a split, straight from the files the manifest lists."""
    directory = StoredDirectory(str(out))
    manifest = Manifest.from_json(directory.read(MANIFEST))
    return np.concatenate([np.frombuffer(directory.read(shard.file), "<u2") for shard in manifest.splits[split].shards])


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("shards", [1, 3, 64])
def test_the_shards_are_the_token_file(config: DataConfig, tmp_path: Path, shards: int) -> None:
    corpus = open_corpus(config, [].append)
    assert run(config, tmp_path / "set", shards=shards) == Outcome.FINISHED
    manifest = Manifest.from_json((tmp_path / "set/manifest.json").read_bytes())
    for split, file in ((TRAIN, corpus.train), (VALIDATION, corpus.validation)):
        np.testing.assert_array_equal(ids_of(tmp_path / "set", split), file.ids)
        found = manifest.splits[split]
        assert (found.tokens, found.text_bytes, found.documents) == (
            file.meta.tokens,
            file.meta.text_bytes,
            file.meta.documents,
        )
    assert manifest.data_digest == corpus.data_digest
    assert manifest.tokenizer_digest == corpus.tokenizer.digest
    assert len(manifest.splits[TRAIN].shards) == shards and len(manifest.splits[VALIDATION].shards) == 1
    assert not (tmp_path / "set/pieces").exists()


@pytest.mark.parametrize("num_processes", [2, 3, 7])
def test_the_number_of_processes_leaves_no_trace(config: DataConfig, tmp_path: Path, num_processes: int) -> None:
    run(config, tmp_path / "one")
    outcomes = []
    for _ in range(2):
        for process in range(num_processes):
            outcomes.append(run(config, tmp_path / "many", process_id=process, num_processes=num_processes))
    assert outcomes[0] == Outcome.WAITING and Outcome.SHARE_DONE in outcomes and outcomes[-1] == Outcome.FINISHED
    assert files_of(tmp_path / "many") == files_of(tmp_path / "one")


def test_a_set_in_a_bucket_from_text_in_a_bucket(config: DataConfig, tmp_path: Path) -> None:
    bucket = StoredDirectory(new_bucket())
    for path in tmp_path.glob("part-*.jsonl"):
        bucket.write_file(f"text/{path.name}", path)
    there = dataclasses.replace(config, path=f"{bucket.location}/text/part-*.jsonl")
    assert run(config, tmp_path / "here") == run(there, f"{bucket.location}/set") == Outcome.FINISHED
    here = files_of(tmp_path / "here")
    assert set(bucket.sizes()) == {f"set/{name}" for name in here} | {f"text/part-{n}.jsonl" for n in range(FILES)}
    assert all(bucket.read(f"set/{name}") == content for name, content in here.items())


class Killed(BaseException):
    """What a kill looks like to the code: nothing catches it."""


def test_killed_at_every_write_and_started_again(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    run(config, tmp_path / "whole")
    original = StoredDirectory._replaced
    kills = 0
    while True:
        left = kills

        def dying(self: StoredDirectory, name: str) -> object:
            nonlocal left
            if left == 0:
                # Half a file under the name that it has before it is renamed.
                (self.local / name).parent.mkdir(parents=True, exist_ok=True)
                (self.local / f"{name}.partial-dead").write_bytes(b"half")
                raise Killed
            left -= 1
            return original(self, name)

        monkeypatch.setattr(StoredDirectory, "_replaced", dying)
        out = tmp_path / f"killed-{kills}"
        try:
            run(config, out)
            break
        except Killed:
            kills += 1
        monkeypatch.setattr(StoredDirectory, "_replaced", original)
        assert not (out / MANIFEST).exists()
        assert run(config, out) == Outcome.FINISHED
        assert files_of(out) == files_of(tmp_path / "whole")
    # plan, 5 parts of up to 2 splits with 2 files each and a description, 4 shards of 2 files, tokenizer, manifest
    assert kills >= 1 + FILES * 3 + 4 * 2 + 2


def test_what_is_finished_is_kept(config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    original = set_pieces.write_pieces

    def counted(directory: object, corpus: object, number: int, *rest: object) -> object:
        done.append(number)
        return original(directory, corpus, number, *rest)

    monkeypatch.setattr(tokenise, "write_pieces", counted)
    said: list[str] = []
    assert run(config, tmp_path / "set", said, process_id=1, num_processes=2) == Outcome.WAITING
    assert said[-1].startswith("3 of 5 parts are still to come, from processes 0: run the same command again")
    assert run(config, tmp_path / "set", said) == Outcome.FINISHED
    assert done == [1, 3, 0, 2, 4]
    assert run(config, tmp_path / "set", said) == Outcome.FINISHED
    assert said[-1].endswith("is finished: nothing to do") and len(done) == 5


def test_a_lost_shard_is_made_again(config: DataConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "set")
    before = files_of(tmp_path / "set")
    shard = tmp_path / "set/shards/train-00001-of-00003.bin"
    os.truncate(shard, shard.stat().st_size - 2)
    (tmp_path / "set/shards/train-00002-of-00003.bin").unlink()
    assert run(config, tmp_path / "set") == Outcome.FINISHED
    assert files_of(tmp_path / "set") == before


def changed_text(path: Path) -> None:
    """Other letters, with as many bytes and the modification time of before."""
    times = path.stat()
    text = path.read_text()
    old, new = ("weights", "WEIGHTS") if "weights" in text else ("WEIGHTS", "weights")
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def unfinished(config: DataConfig, out: Path) -> None:
    assert run(config, out, process_id=1, num_processes=2) == Outcome.WAITING


def finished(config: DataConfig, out: Path) -> None:
    assert run(config, out) == Outcome.FINISHED


def without_a_shard(config: DataConfig, out: Path) -> None:
    finished(config, out)
    (out / "shards/train-00001-of-00003.bin").unlink()


def of_before(config: DataConfig, out: Path) -> None:
    """As a set of before its manifest held the digests of parts."""
    finished(config, out)
    manifest = json.loads((out / MANIFEST).read_text())
    del manifest["part_digests"], manifest["check"]
    (out / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("state", [unfinished, finished, without_a_shard, of_before])
@pytest.mark.parametrize("remembered", [False, True])
def test_a_set_never_serves_old_text(
    state: Callable, remembered: bool, config: DataConfig, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if remembered:
        request.getfixturevalue("settled")
    state(config, tmp_path / "set")
    before = files_of(tmp_path / "set")
    time.sleep(0.02)  # a tick of the file system's clock
    for number in (1, 3):
        changed_text(tmp_path / f"part-{number}.jsonl")
    for flags in ({"process_id": 1, "num_processes": 2}, {}):
        with pytest.raises(
            ConfigError, match=r"--out=.*: holds a token set of another text[^\n]*; name another"
        ) as error:
            run(config, tmp_path / "set", **flags)
        assert state is of_before or "part-1.jsonl, part-3.jsonl" in str(error.value)
    assert files_of(tmp_path / "set") == before


def test_text_that_changes_while_it_is_read_is_one_line(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = set_pieces.append_tokenised

    def behind(*arguments: object) -> None:
        original(*arguments)
        changed_text(tmp_path / "part-1.jsonl")

    def meanwhile(documents: Iterator, *arguments: object) -> None:
        first = next(documents)
        changed_text(tmp_path / "part-1.jsonl")
        original([first, *documents], *arguments)

    for number, meddled in enumerate((behind, meanwhile)):
        monkeypatch.setattr(set_pieces, "append_tokenised", meddled)
        with pytest.raises(ConfigError, match="changed while it was read; run the command again"):
            run(config, tmp_path / f"set-{number}", process_id=1, num_processes=2)
        monkeypatch.setattr("sparsejax.data.token_files.append_tokenised", meddled)
        with pytest.raises(ConfigError, match="changed while it was read; run the command again"):
            open_corpus(dataclasses.replace(config, path=f"{tmp_path}/part-1.jsonl"), [].append)


def test_every_damage_of_a_set_is_found_by_verify(config: DataConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "set")
    said: list[str] = []
    verify_set(str(tmp_path / "set"), said.append)
    assert len(said) == 5
    whole = files_of(tmp_path / "set")
    draw = random.Random(1)
    # What training reads; plan and descriptions of shards are read by tokenize alone.
    names = [name for name in whole if name.endswith(".bin") or name.startswith("tokenizer/")] + [MANIFEST]
    for name in names * 3:
        content = bytearray(whole[name])
        if draw.randrange(2):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        else:
            del content[draw.randrange(len(content)) :]
        (tmp_path / "set" / name).write_bytes(content)
        try:
            verify_set(str(tmp_path / "set"), said.append)
        except ConfigError as error:
            assert "\n" not in str(error)
        else:
            # A letter of what nothing depends on, such as the digest of the text.
            assert name == MANIFEST
        (tmp_path / "set" / name).write_bytes(whole[name])


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({}, {"shards": 4}, "holds a token set with other shards; name another directory"),
        ({"validation_fraction": 0.3}, {}, "with other source or text field, division;"),
        ({"text_field": "body"}, {}, "with other source or text field;"),
        ({"tokenizer": "bpe", "vocab_size": 300}, {}, "data.tokenizer=bpe: tokenize needs text, and a tokenizer"),
        ({"source": "stdlib", "path": ""}, {}, "with other source or text field, parts;"),
        ({"validation_fraction": 1e-9}, {"out": "new"}, "none of the 105 documents fell into the validation split"),
        ({}, {"process_id": 2, "num_processes": 2}, "processes count from 0"),
        ({}, {"out": "file/below"}, "--out="),
    ],
)
def test_what_cannot_be_is_one_line(
    changes: dict, flags: dict, message: str, config: DataConfig, tmp_path: Path
) -> None:
    run(config, tmp_path / "set")
    (tmp_path / "file").write_text("")
    out = tmp_path / flags.pop("out", "set")
    with pytest.raises(ConfigError) as error:
        run(dataclasses.replace(config, **changes), out, **flags)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_waiting_ends_when_the_pieces_are_there(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    # The other process works while this one sleeps.
    monkeypatch.setattr(tokenise.time, "sleep", lambda _: run(config, tmp_path / "set", process_id=1, num_processes=2))
    assert run(config, tmp_path / "set", said, process_id=0, num_processes=2, wait=60) in (
        Outcome.SHARE_DONE,
        Outcome.FINISHED,
    )
    assert any("from processes 1: waiting for at most 60 s" in line for line in said)


def test_three_processes_at_once(config: DataConfig, tmp_path: Path) -> None:
    program = f"""
import sys
from sparsejax.config import DataConfig
from sparsejax.data import tokenise
tokenise._POLL_SECONDS = 0.02
print("ready", flush=True)
input()
outcome = tokenise.tokenise({config!r}, {str(tmp_path / "set")!r}, shards=3, process_id=int(sys.argv[1]),
                            num_processes=3, wait=60, notice=lambda line: None)
print(outcome.name)
"""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen([sys.executable, "-c", program, str(number)], **pipes) for number in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outcomes = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert ["FINISHED"] in outcomes and ["WAITING"] not in outcomes
    run(config, tmp_path / "alone")
    assert files_of(tmp_path / "set") == files_of(tmp_path / "alone")


@pytest.mark.parametrize("kind", ["array_record", "tfrecord", "parquet"])
def test_the_layouts_of_c4(
    kind: str, data_config: Callable[..., DataConfig], t5_model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pattern = request.getfixturevalue(f"c4_{kind}")
    config = data_config(
        source=kind.replace("_", ""), path=pattern, tokenizer="sentencepiece", tokenizer_path=str(t5_model)
    )
    corpus = open_corpus(config, [].append)
    said: list[str] = []
    assert run(config, tmp_path / "set", said) == Outcome.FINISHED
    for split, file in zip(SPLITS, (corpus.train, corpus.validation), strict=True):
        np.testing.assert_array_equal(ids_of(tmp_path / "set", split), file.ids)
    assert any("the set will take about" in line and "GB are free" in line for line in said)
