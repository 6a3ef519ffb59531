"""The cache: whole entries or none, rebuilt when broken, shared by processes."""

import mmap
import os
import time
from collections.abc import Callable
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


def test_what_killed_builds_left_is_removed(tmp_path: Path) -> None:
    for name, age in ((".entry.1.dead", 2), (".other.2.dead", 3), (".entry.3.busy", 0.5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.scratch").write_text("half")
        for path in (tmp_path / name / "train.scratch", tmp_path / name):
            os.utime(path, (time.time() - age * 86400,) * 2)
    open_or_build(tmp_path / "entry", read, write_good, fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".entry.3.busy", "entry"]


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

    with pytest.raises(ConfigError, match=r"is still corrupt \(the file is not good\); name another data.cache_dir"):
        open_or_build(tmp_path / "entry", read, write_bad, lambda line: None)


def in_place(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


def by_rename(path: Path, other: Path) -> None:
    other.rename(path)


def by_unlink(path: Path, other: Path) -> None:
    path.unlink()
    path.write_bytes(other.read_bytes())


def by_link(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


def by_hard_link(path: Path, other: Path) -> None:
    path.unlink()
    os.link(other, path)


def by_map(path: Path, other: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:] = other.read_bytes()
        mapped.flush()


CHANGES = [in_place, by_rename, by_unlink, by_link, by_hard_link, by_map]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("linked", [False, True])
def test_no_change_of_a_file_is_missed(
    change: Callable[[Path, Path], None], linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal size and equal modification time, by whatever way the bytes came to be others."""
    path, other = tmp_path / "file", tmp_path / "other"
    target = tmp_path / "target"
    target.write_text("one")
    path.symlink_to(target) if linked else path.write_text("one")
    other.write_text("two")
    for each in (path, other):
        os.utime(each, ns=(10**18, 10**18))
    digests = FileDigests(tmp_path / "digests")
    first = digests.digest(path)
    with monkeypatch.context() as unread:
        unread.setattr("sparsejax.data.cache.file_sha256", fail)
        assert FileDigests(tmp_path / "digests").digest(path) == first
    time.sleep(0.02)  # longer than a tick of the file system's clock; shorter changes are not remembered, see below
    change(path, other)
    os.utime(path, ns=(10**18, 10**18))
    assert path.stat().st_size == 3 and path.stat().st_mtime_ns == 10**18
    assert digests.digest(path) == file_sha256(path) != first


def test_what_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "file"
    digests = FileDigests(tmp_path / "digests")
    for number in range(200):
        path.write_text(f"{number:03}")
        os.utime(path, ns=(10**18, 10**18))
        assert digests.digest(path) == file_sha256(path)
    assert not (tmp_path / "digests").exists()


@pytest.mark.usefixtures("settled")
def test_no_damage_of_what_is_remembered_gives_another_digest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    digests = FileDigests(tmp_path / "digests")
    first = digests.digest(path)
    (memo,) = (tmp_path / "digests").iterdir()
    whole = memo.read_bytes()
    damaged = [whole[:cut] for cut in range(0, len(whole), 5)] + [b"\xff" * len(whole), first.encode(), whole + b"x"]
    damaged += [whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in range(0, len(whole), 5)]
    for content in damaged:
        memo.write_bytes(content)
        assert digests.digest(path) == first


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
