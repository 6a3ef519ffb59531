"""No document both trains and validates, in any format, whatever names the validation files have."""

import gzip
import sys
import sysconfig
import types
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests, file_sha256
from sparsejax.data.pipeline import open_corpus
from sparsejax.data.splits import TRAIN, VALIDATION, SplitCorpus, split_corpus
from sparsejax.data.storage import StoredDirectory
from tests.data.conftest import new_bucket
from tests.data.formats import FILES, content_of
from tests.data.hf_source_test import Rows


def texts_of(corpus: SplitCorpus) -> tuple[list[str], list[str]]:
    """The texts that train, and those that validate."""
    found = list(corpus.documents())
    train, validation = ([document.text for of, document in found if of == split] for split in (TRAIN, VALIDATION))
    assert [document.text for document in corpus.train_documents()] == train
    return train, validation


@pytest.mark.parametrize("kind", FILES)
def test_files_of_both_settings_validate_only(kind: str, data_config, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_bytes(content_of(kind, [f"{name} 1", f"{name} 2"]))
    (tmp_path / "copy").write_bytes((folder / "b").read_bytes())
    (tmp_path / "link").symlink_to(folder / "b")
    bucket = StoredDirectory(new_bucket())
    bucket.write_file("elsewhere", folder / "b")
    digests = FileDigests(tmp_path / "digests")
    alone = split_corpus(data_config(source=kind, path=f"{folder}/[ac]", validation_path=f"{folder}/b"), digests)
    assert alone.notes == ()
    names = (f"{folder}/b", f"{folder}/./b", f"{tmp_path}/link", f"{tmp_path}/copy", f"file://{folder}/b")
    for validation_path in (*names, f"{bucket.location}/*", f"{folder}/b,{tmp_path}/copy"):
        corpus = split_corpus(data_config(source=kind, path=f"{folder}/*", validation_path=validation_path), digests)
        train, validation = texts_of(corpus)
        assert not set(train) & set(validation) and train == texts_of(alone)[0]
        assert corpus.notes == (
            f"data.path={folder}/*: 1 of 3 files are in data.validation_path too, and validate only: b",
        )
        if "," not in validation_path:
            assert corpus.digest() == alone.digest()
    with pytest.raises(ConfigError, match=r"all its files are in data.validation_path too \(b\); nothing is left"):
        split_corpus(data_config(source=kind, path=f"{folder}/b", validation_path=f"{folder}/*"), digests)


def test_other_bytes_of_equal_size_are_other_files(data_config, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(gzip.compress(content_of("jsonl", [name]), mtime=0))
    config = data_config(path=f"{tmp_path}/a", validation_path=f"{tmp_path}/b")
    assert texts_of(split_corpus(config, FileDigests(tmp_path / "digests"))) == (["a"], ["b"])


def test_rows_of_both_settings_validate_only(data_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("datasets")
    files = {name: tmp_path / name for name in ("train", "test")}
    for name, file in files.items():
        file.write_text(name)

    def load_dataset(name: str, configuration: str | None = None, *, split: str) -> Rows:
        rows = Rows([f"{split} {row}" for row in range(10)])
        names = [split] if split in files else list(files)
        rows.cache_files = [{"filename": str(files[one])} for one in names if name == "filed"]
        return rows

    module.__dict__.update(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", module)
    digests = FileDigests(tmp_path / "digests")
    monkeypatch.setattr("sparsejax.data.cache._SETTLED_NS", -(10**18))
    for name in ("filed", "plain", "plain:configuration"):
        for path, validation_path, count in (
            ("@train[:90%]", "@train[90%:]", 0),
            ("@train[:90%]", "@train[80%:]", 1),
            ("", "@train[4:6]", 2),
            ("@train+test", "@test[:3]+train[7:]", 6),
            ("", "@test", 0),
        ):
            config = data_config(source="hf", path=f"{name}{path}", validation_path=f"{name}{validation_path}")
            corpus = split_corpus(config, digests)
            train, validation = texts_of(corpus)
            alone = split_corpus(data_config(source="hf", path=f"{name}{path}"), digests).source
            assert train == [document.text for document in alone.documents() if document.text not in validation]
            assert (corpus.source.content_digest() == alone.content_digest()) == (count == 0)
            assert [f"{count} of " in note for note in corpus.notes] == [True] * bool(count)
        with pytest.raises(ConfigError, match="all its rows are in"):
            split_corpus(data_config(source="hf", path=f"{name}@train[2:4]", validation_path=name), digests)
    with pytest.raises(ConfigError, match="shares files with"):
        split_corpus(data_config(source="hf", path="filed@all", validation_path="filed@test"), digests)


def test_modules_of_both_settings_validate_only(data_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for name in ("os", "re", "abc"):
        (library / f"{name}.py").write_text(f"# {name}")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(library)})
    # Longer than the documents that plain text is cut into.
    (library / "re.py").write_text("# re\n\n" * 9000)
    (tmp_path / "copy").write_text("# re\n\n" * 9000)
    for validation_path in (f"{library}/re.py", f"{tmp_path}/copy"):
        corpus = split_corpus(
            data_config(source="stdlib", path="", validation_path=validation_path), FileDigests(tmp_path / "digests")
        )
        train, validation = texts_of(corpus)
        assert train == ["# abc", "# os"] and "".join(validation) == "# re\n\n" * 9000
        assert corpus.notes == (
            "data.source=stdlib: 1 modules are in data.validation_path too, and validate only: re.py",
        )


def test_the_line_is_said_when_a_corpus_is_opened(data_config, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_bytes(content_of("jsonl", [name]))
    said: list[str] = []
    open_corpus(data_config(path=f"{tmp_path}/*.json", validation_path=f"{tmp_path}/b.json"), said.append)
    assert any("1 of 2 files are in data.validation_path too" in line for line in said)
    (tmp_path / "b.json").write_bytes(content_of("jsonl", ["a", "b", "c"]))
    (tmp_path / "a.json").write_bytes(content_of("jsonl", ["a", "d"]))
    corpus = open_corpus(data_config(path=f"{tmp_path}/a.json", validation_path=f"{tmp_path}/b.json"), said.append)
    assert corpus.train.meta.documents == 1
    assert said[-1] == "documents with texts of data.validation_path do not train; they are in 1 parts: a.json"


@pytest.mark.parametrize("kind", FILES[1:])
def test_equal_texts_validate_only(kind: str, data_config, tmp_path: Path) -> None:
    contents = {"a": ["1", "2", "3"], "b": ["4", "5"], "c": ["6", "2"], "v": ["2", "7", "5"], "w": ["8"]}
    for name, texts in contents.items():
        (tmp_path / name).write_bytes(content_of(kind, texts))
    for validation_path, wanted, parts in (
        ("v", ["1", "3", "4", "6"], "they are in 3 parts: a, b, c"),
        ("w", ["1", "2", "3", "4", "5", "6", "2"], ""),
    ):
        config = data_config(source=kind, path=f"{tmp_path}/[abc]", validation_path=f"{tmp_path}/{validation_path}")
        by_digest, by_parts = (split_corpus(config, FileDigests(tmp_path / f"digests {n}")) for n in range(2))
        digest = by_digest.digest()
        assert texts_of(by_digest) == texts_of(by_parts) == (wanted, contents[validation_path])
        # Digests follow from parts that have been read, and from files that are read for them.
        assert by_parts.digest() == by_digest.digest() == digest
        assert split_corpus(config, FileDigests(tmp_path / "digests 0")).digest() == digest
        files = by_parts.source.combined_digest([file_sha256(tmp_path / name) for name in "abc"])
        assert (by_parts.source.content_digest() == files) == (not parts)
        assert by_parts.late_note().endswith(parts) and by_parts.late_note().startswith(
            "documents with" if parts else ""
        )


def test_the_same_text_in_another_file_leaves_nothing(data_config, tmp_path: Path) -> None:
    content = content_of("jsonl", ["a", "b"])
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "a.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ConfigError, match=r"a: has no text that is not in data.validation_path too; name other files"):
        open_corpus(data_config(path=f"{tmp_path}/a", validation_path=f"{tmp_path}/a.gz"), [].append)


def test_digests_of_equal_texts_are_remembered(data_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "v"):
        (tmp_path / name).write_bytes(content_of("jsonl", [name, "both"]))
    config = data_config(path=f"{tmp_path}/a", validation_path=f"{tmp_path}/v")
    corpus = split_corpus(config, FileDigests(tmp_path / "digests"))
    digest = corpus.digest()
    monkeypatch.setattr("sparsejax.data.file_source.FileSource.part_documents", None)
    again = split_corpus(config, FileDigests(tmp_path / "digests"))
    assert again.digest() == digest and again.late_note() == corpus.late_note() != ""
