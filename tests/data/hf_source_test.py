"""Hugging Face data sets, with a stand-in for the library (an optional dependency)."""

import sys
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

    def __init__(self, texts: list[str | None], file: Path | None = None) -> None:
        self.texts = texts
        self.cache_files = [{"filename": str(file)}] if file else []

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
        return Rows(["a", None, "", "b"])

    module.__dict__.update(
        load_dataset=load_dataset, load_from_disk=lambda path: {"train": Rows(["saved"])}, calls=calls
    )
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def opened(value: str, tmp_path: Path, field: str = "text") -> HfSource:
    return HfSource(PathSetting("data.path", value), field, FileDigests(tmp_path / "digests"))


def test_names_configurations_and_splits(library: types.ModuleType, tmp_path: Path) -> None:
    assert [document.text for document in opened("c4:en@validation", tmp_path).documents()] == ["a", "b"]
    opened("c4", tmp_path)
    opened(str(tmp_path), tmp_path)
    assert library.calls == [("c4", "en", "validation"), ("c4", None, "train"), (str(tmp_path), None, "train")]


def test_saved_data_sets(library: types.ModuleType, tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text("{}")
    assert [document.text for document in opened(str(tmp_path), tmp_path).documents()] == ["saved"]


@pytest.mark.usefixtures("settled")
def test_digest_is_remembered_for_each_value_until_the_files_change(
    library: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrow = tmp_path / "data.arrow"
    arrow.write_text("rows")
    contents = {"c4": ["a"], "c4@train[:1]": ["b"]}
    split_of = {"train": "c4", "train[:1]": "c4@train[:1]"}
    monkeypatch.setattr(
        library, "load_dataset", lambda name, _, split: Rows(list(contents[split_of[split]]), arrow), raising=True
    )
    first = opened("c4", tmp_path).content_digest()
    assert opened("c4@train[:1]", tmp_path).content_digest() != first
    contents["c4"] = ["not looked at"]
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
