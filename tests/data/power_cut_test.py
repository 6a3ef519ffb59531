"""What is stored reaches the disk before anyone counts on it: every file, every folder, and their names."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsejax.config import DataConfig
from sparsejax.data.bpe import train_bpe
from sparsejax.data.pipeline import open_corpus
from sparsejax.data.tokenise import tokenise
from tests.data.conftest import texts


def write_set(config: DataConfig, out: Path) -> None:
    flags = {"shards": 3, "process_id": 0, "num_processes": 1, "wait": 0}
    tokenise(config, str(out / "set"), **flags, notice=lambda line: None)


def write_tokenizer(config: DataConfig, out: Path) -> None:
    train_bpe(texts(5), 300).save(out / "run" / "tokenizer")


def write_cache(config: DataConfig, out: Path) -> None:
    open_corpus(config, lambda line: None)
    for name in ("tokens", "tokenizers"):
        (Path(config.cache_dir) / name).rename(out / name)


@pytest.mark.parametrize("write", [write_set, write_tokenizer, write_cache])
def test_all_that_is_there_was_synced(
    write: Callable[[DataConfig, Path], None],
    data_config: Callable[..., DataConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synced: dict[int, tuple[int, int]] = {}
    original = os.fsync

    def fsync(descriptor: int) -> None:
        original(descriptor)
        stat = os.fstat(descriptor)
        synced[stat.st_ino] = stat.st_size, stat.st_mtime_ns

    monkeypatch.setattr(os, "fsync", fsync)
    out = tmp_path / "new" / "deep"
    if write is write_cache:
        out.mkdir(parents=True)
    write(data_config(tokenizer="bpe" if write is write_cache else "byte", vocab_size=300), out)
    found = sorted(out.rglob("*"))
    assert len(found) > 2
    for path in found if write is write_cache else [*found, out, out.parent, tmp_path]:
        stat = path.stat()
        assert stat.st_ino in synced, f"{path} was not synced"
        if path.is_file():
            assert synced[stat.st_ino] == (stat.st_size, stat.st_mtime_ns), f"{path} was written after it was synced"
