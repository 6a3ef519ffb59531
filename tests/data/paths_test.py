"""From a path setting to files."""

import os
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.paths import PathSetting


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
