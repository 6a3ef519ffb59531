"""Hugging Face data sets, with a stand-in for the library (an optional dependency)."""

import os
import sys
import time
import types
from pathlib import Path

import pytest

from sparsejax.config import ConfigError, DataConfig
from sparsejax.data.cache import FileDigests
from sparsejax.data.hf_source import HfSource
from sparsejax.data.paths import PathSetting


class Rows:
    """The part of ``datasets.Dataset`` that is used."""

    column_names: tuple[str, ...] = ("text", "url")

    def __init__(self, texts: list[str | None], file: Path | None = None, split: str | None = None) -> None:
        self.texts = texts
        self.split = split
        self.cache_files = [{"filename": str(file)}] if file else []

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: range) -> "Rows":
        return Rows([self.texts[row] for row in rows])

    def select_columns(self, names: list[str]) -> list[dict[str, str | None]]:
        assert names == ["text"]
        return [{"text": text} for text in self.texts]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("datasets")
    calls: list[tuple[str, str | None, str]] = []

    def load_dataset(name: str, configuration: str | None = None, *, split: str) -> Rows:
        if name == "absent":
            raise FileNotFoundError("no data set of that name\nsecond line")
        calls.append((name, configuration, split))
        return Rows(["a", None, "", "b"] if split == "validation" else [f"{split} {row}" for row in range(10)])

    def load_from_disk(path: str) -> Rows | dict[str, Rows]:
        rows = Rows([f"saved {row}" for row in range(10)], split="train[:10]" if path.endswith("cut") else None)
        return {"train": rows, "test": Rows(["test"])} if Path(path, "dataset_dict.json").exists() else rows

    module.__dict__.update(load_dataset=load_dataset, load_from_disk=load_from_disk, calls=calls)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def opened(value: str, tmp_path: Path, field: str = "text") -> HfSource:
    return HfSource(PathSetting("data.path", value), field, FileDigests(tmp_path / "digests"))


def found(value: object, tmp_path: Path) -> list[str]:
    return [document.text for document in opened(str(value), tmp_path).documents()]


def numbers(name: str, *rows: int) -> list[str]:
    return [f"{name} {row}" for row in rows]


def test_names_configurations_and_splits(library: types.ModuleType, tmp_path: Path) -> None:
    assert found("c4:en@validation", tmp_path) == ["a", "b"]
    opened("c4", tmp_path)
    folder = tmp_path / "a@b"
    folder.mkdir()
    opened(str(folder), tmp_path)
    opened(f"{folder}@test[:1]", tmp_path)
    assert library.calls == [
        ("c4", "en", "validation"),
        ("c4", None, "train"),
        (str(folder), None, "train"),
        (str(folder), None, "test"),
    ]


def test_slices_mean_the_same_for_all_data_sets(library: types.ModuleType, tmp_path: Path) -> None:
    saved, splits = tmp_path / "saved", tmp_path / "splits"
    for folder, mark in ((saved, "state.json"), (splits, "dataset_dict.json"), (tmp_path / "cut", "state.json")):
        folder.mkdir()
        (folder / mark).write_text("{}")
    for value, name in (("c4", "train"), (saved, "saved"), (splits, "saved"), (tmp_path / "cut", "saved")):
        assert found(value, tmp_path) == found(f"{value}@train", tmp_path) == numbers(name, *range(10))
        assert found(f"{value}@train[:25%]", tmp_path) == numbers(name, 0, 1)
        assert found(f"{value}@train[-2:] + train[1:3]", tmp_path) == numbers(name, 8, 9, 1, 2)
        # A row is there once.
        assert found(f"{value}@train[1:4]+train[2:5]", tmp_path) == numbers(name, 1, 2, 3, 4)
        digests = {opened(f"{value}@{part}", tmp_path).content_digest() for part in ("train", "train[1:]", "train[:9]")}
        assert len(digests) == 3
    assert found(f"{splits}@test", tmp_path) == ["test"]
    for value in (f"{saved}@validation", f"{splits}@validation", f"{tmp_path / 'cut'}@test"):
        with pytest.raises(ConfigError, match=r"it has no split .*, only train"):
            opened(value, tmp_path)
    for split in ("train[", "train[50%", "train[:101%]", "train[3:3]", "train(closest)", "a b"):
        with pytest.raises(ConfigError, match=r"is no split|more than 100|names no rows|rounds no percent"):
            opened(f"c4@{split}", tmp_path)


def test_digest_is_remembered_for_each_slice_until_the_files_change(
    library: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrow = tmp_path / "data.arrow"
    arrow.write_text("rows")
    os.utime(arrow, (1, 1))
    monkeypatch.setattr("sparsejax.data.cache._SETTLED_NS", -(10**18))
    contents = ["a", "b"]
    monkeypatch.setattr(library, "load_dataset", lambda name, _, split: Rows(list(contents), arrow), raising=True)
    first = opened("c4", tmp_path).content_digest()
    assert opened("c4@train[:1]", tmp_path).content_digest() != first
    contents[0] = "not looked at"
    assert opened("c4", tmp_path).content_digest() == first
    arrow.write_text("other rows")
    assert opened("c4", tmp_path).content_digest() != first


def test_errors_are_one_line(library: types.ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        opened("absent", tmp_path)
    assert str(error.value) == "data.path=absent: the data set cannot be loaded: no data set of that name"
    with pytest.raises(ConfigError, match=r"data.text_field=body: c4 has no text under that name; it has: text, url"):
        opened("c4", tmp_path, field="body")


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"data.source=hf: .* pip install 'sparsejax\[hf\]'"):
        opened("c4", tmp_path)


def test_the_configuration_reaches_it(library: types.ModuleType, data_config, tmp_path: Path) -> None:
    from sparsejax.data.splits import split_corpus

    config: DataConfig = data_config(source="hf", path="c4:en")
    assert split_corpus(config, FileDigests(tmp_path)).source.name == "hf"


def test_a_folder_changed_behind_the_library_s_back_is_read_anew(
    library: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its cache goes by modification times (seen with datasets 5.2.0), which may be those of before."""
    folder, cached = tmp_path / "folder", tmp_path / "cached.arrow"
    folder.mkdir()
    built: list[str] = []

    def load_dataset(name: str, *, split: str, download_mode: str = "reuse_dataset_if_exists") -> Rows:
        if not cached.exists() or download_mode == "force_redownload":
            time.sleep(0.02)  # a tick of the file system's clock
            built.append((folder / "train.txt").read_text())
            cached.write_text("built")
        return Rows([built[-1]], cached)

    monkeypatch.setattr(library, "load_dataset", load_dataset)
    for text in ("alice", "XXXXX", "alice"):
        time.sleep(0.02)
        (folder / "train.txt").write_text(text)
        os.utime(folder / "train.txt", ns=(10**18, 10**18))
        assert found(folder, tmp_path) == found(folder, tmp_path) == [text]
    assert built == ["alice", "XXXXX", "alice"]
