"""From a path setting to files."""

import os
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests
from sparsejax.data.paths import PathSetting
from sparsejax.data.storage import StoredDirectory
from tests.data.conftest import new_bucket


def setting(value: str) -> PathSetting:
    return PathSetting("data.path", value)


def test_patterns_keep_their_order_and_matches_are_sorted(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "z.md"):
        (tmp_path / name).write_text(name)
    files = setting(f"{tmp_path}/z.md, {tmp_path}/*.txt,{tmp_path}/a.txt").files()
    assert [file.name for file in files] == ["z.md", "a.txt", "b.txt"]


def test_home_directory_and_literal_brackets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a[1].txt").write_text("text")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert setting("~/a[1].txt").files() == [tmp_path / "a[1].txt"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("missing/*.txt", "data.path=missing/*.txt: no file matches 'missing/*.txt'"),
        ("full.txt,none.txt", "data.path=full.txt,none.txt: no file matches 'none.txt'"),
        ("empty.txt", "data.path=empty.txt: empty.txt is empty; remove it or name other files"),
        ("folder", "data.path=folder: folder is a directory; name the files in it, such as 'folder/*'"),
        (" , ", "names no file"),
    ],
)
def test_unusable_paths_are_named(value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full.txt").write_text("text")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        setting(value).files()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_one_file_is_asked_for(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text("text")
    assert setting(str(tmp_path / "a")).file() == tmp_path / "a"
    with pytest.raises(ConfigError, match="matches 2 files; name one"):
        setting(os.path.join(tmp_path, "*")).file()


def test_uris_and_paths_together(tmp_path: Path) -> None:
    bucket = StoredDirectory(new_bucket())
    for name in ("1.json", "0.json"):
        bucket.write(name, b"text")
    (tmp_path / "here.json").write_text("more")
    both = setting(f"{bucket.location}/*.json,{tmp_path}/*.json,{bucket.location}/0.json")
    files = both.corpus_files(FileDigests(tmp_path / "digests"))
    assert [file.name for file in files] == [
        f"{bucket.location}/0.json",
        f"{bucket.location}/1.json",
        f"{tmp_path}/here.json",
    ]
    assert [file.size for file in files] == [4, 4, 4]
    with pytest.raises(ConfigError, match=r"0\.json is not on this machine; copy it here first"):
        setting(f"{bucket.location}/0.json").file()


@pytest.mark.parametrize(
    ("name", "message"), [("none*", "no file matches"), ("empty", "empty is empty"), ("folder/*", "no file matches")]
)
def test_unusable_uris_are_named(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(ConfigError, match=message):
        setting(f"file://{tmp_path}/{name}").corpus_files(FileDigests(tmp_path / "digests"))


def test_a_store_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data.path=nosuch://b/\*: cannot be listed: [^\n]+$"):
        setting("nosuch://b/*").corpus_files(FileDigests(tmp_path / "digests"))
