"""The cache: whole entries or none, rebuilt when broken, shared by processes."""

import os
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.cache import CorruptEntryError, FileDigests, cache_root, file_sha256, open_or_build


def read(entry: Path) -> str:
    text = (entry / "file").read_text()
    if text != "good":
        raise CorruptEntryError("the file is not good")
    return text


def write_good(entry: Path) -> None:
    (entry / "file").write_text("good")


def fail(entry: Path) -> None:
    raise AssertionError(f"{entry} should not be written")


def left_over(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name.startswith(".")]


def test_built_once_then_read(tmp_path: Path) -> None:
    said: list[str] = []
    assert open_or_build(tmp_path / "a/entry", read, write_good, said.append) == "good"
    assert open_or_build(tmp_path / "a/entry", read, fail, said.append) == "good"
    assert said == [] and left_over(tmp_path / "a") == []


@pytest.mark.parametrize("damage", [lambda file: file.write_text("bad"), lambda file: file.unlink()])
def test_a_corrupt_entry_is_rebuilt_and_said(damage, tmp_path: Path) -> None:
    said: list[str] = []
    open_or_build(tmp_path / "entry", read, write_good, said.append)
    damage(tmp_path / "entry" / "file")
    assert open_or_build(tmp_path / "entry", read, write_good, said.append) == "good"
    assert len(said) == 1 and "is corrupt" in said[0] and "building it again" in said[0]
    assert left_over(tmp_path) == []


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def write(entry: Path) -> None:
        write_good(entry)
        raise ConfigError("data.path=x: no text")

    with pytest.raises(ConfigError):
        open_or_build(tmp_path / "entry", read, write, fail)
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_builders_wins_and_both_read_it(tmp_path: Path) -> None:
    entry = tmp_path / "entry"

    def write_while_another_publishes(directory: Path) -> None:
        write_good(directory)
        open_or_build(entry, read, write_good, fail)

    assert open_or_build(entry, read, write_while_another_publishes, fail) == "good"
    assert left_over(tmp_path) == []


def test_an_entry_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    entry = tmp_path / "entry"
    open_or_build(entry, read, write_good, fail)
    visits = []

    def read_as_another_discards(directory: Path) -> str:
        visits.append(directory)
        if len(visits) == 1:
            directory.rename(tmp_path / "taken")
        return read(directory)

    assert open_or_build(entry, read_as_another_discards, write_good, lambda line: None) == "good"


def test_an_entry_that_is_never_right_ends_in_an_error(tmp_path: Path) -> None:
    def write_bad(entry: Path) -> None:
        (entry / "file").write_text("bad")

    with pytest.raises(RuntimeError, match="still corrupt: the file is not good"):
        open_or_build(tmp_path / "entry", read, write_bad, lambda line: None)


def test_digests_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    digests = FileDigests(tmp_path / "digests")
    first = digests.digest(path)
    assert first == file_sha256(path)
    monkeypatch.setattr("sparsejax.data.cache.file_sha256", fail)
    assert FileDigests(tmp_path / "digests").digest(path) == first
    monkeypatch.undo()
    for memo in (tmp_path / "digests").iterdir():
        memo.write_text("cut sho")
    assert digests.digest(path) == first
    os.utime(path, ns=(0, 1))
    path.write_text("two")
    assert digests.digest(path) == file_sha256(path) != first


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SPARSEJAX_CACHE", raising=False)
    assert cache_root("") == tmp_path / "xdg/sparsejax"
    monkeypatch.setenv("SPARSEJAX_CACHE", str(tmp_path / "own"))
    assert cache_root("") == tmp_path / "own"
    assert cache_root(str(tmp_path / "set")) == tmp_path / "set"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"data.cache_dir=.*: cannot be created"):
        cache_root(str(tmp_path / "file/below"))
