"""From a path setting to files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests
from sparsejax.data.paths import PathSetting
from sparsejax.data.storage import StoredDirectory
from tests.data.conftest import new_bucket

TREE = (
    "top.txt",
    "b.txt",
    "a [1]#2?3%41.txt",
    ".hidden.txt",
    "en/1.json",
    "en/0.json",
    "en/.part/2.json",
    "en/x/y/deep.json",
    "en#1/other.json",
    "de/.git",
    "de/3.txt",
)
# What each pattern matches, in order; a word is what the line says that refuses it.
PATTERNS: dict[str, list[str] | str] = {
    "*.txt": ["a [1]#2?3%41.txt", "b.txt", "top.txt"],
    "[b-t]*.txt": ["b.txt", "top.txt"],
    "top.txt,*.txt": ["top.txt", "a [1]#2?3%41.txt", "b.txt"],
    "a [1]#2?3%41.txt": ["a [1]#2?3%41.txt"],
    "en/*": ["en/0.json", "en/1.json"],
    "*/*.json": ["en#1/other.json", "en/0.json", "en/1.json"],
    "en#1/*": ["en#1/other.json"],
    "en/**": ["en/0.json", "en/1.json", "en/x/y/deep.json"],
    "en/**/*.json,en/*.json": ["en/0.json", "en/1.json", "en/x/y/deep.json"],
    "**/*.txt": ["a [1]#2?3%41.txt", "b.txt", "de/3.txt", "top.txt"],
    "**/y/**": ["en/x/y/deep.json"],
    "**/**/*3.txt": ["de/3.txt"],
    "**/" * 3000 + "*3.txt": ["de/3.txt"],
    "*/.*": ["de/.git"],
    "en/.part/*": ["en/.part/2.json"],
    ".*": [".hidden.txt"],
    "en": "en is a directory; name the files in it",
    "en/": "name the files in it, such as '.*en/\\*'",
    "en/x/*": "no file matches",
    "none/*": "no file matches",
    "none.txt": "no file matches",
    "en/*/": "no file matches",
}


@pytest.fixture(params=["path", "file", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A directory with the tree, named in each of the ways there are."""
    location = new_bucket() if request.param == "bucket" else str(tmp_path / "a%20b #?")
    directory = StoredDirectory(location)
    for name in TREE:
        if request.param != "bucket":
            directory.write(name, name.encode())
            continue
        # To rename a file, fsspec would take its name for a pattern.
        with directory._filesystem.open_output_stream(f"{directory._root}/{name}") as file:
            file.write(name.encode())
    yield f"file://{location}" if request.param == "file" else location


def setting(value: str) -> PathSetting:
    return PathSetting("data.path", value)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_mean_the_same_everywhere(pattern: str, place: str, tmp_path: Path) -> None:
    value, wanted = ",".join(f"{place}/{part}" for part in pattern.split(",")), PATTERNS[pattern]
    digests = FileDigests(tmp_path / "digests")
    if isinstance(wanted, str):
        with pytest.raises(ConfigError, match=wanted):
            setting(value).corpus_files(digests)
        return
    found = []
    for file in setting(value).corpus_files(digests):
        with file.opened() as path:
            found.append(path.read_text())
        assert file.name.endswith(found[-1]) and file.size == len(found[-1])
    assert found == wanted


def test_a_file_is_there_once_whatever_names_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus").mkdir()
    real = tmp_path / "corpus/a.txt"
    real.write_text("text")
    (tmp_path / "link.txt").symlink_to(real)
    (tmp_path / "hard.txt").hardlink_to(real)
    (tmp_path / "folder").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus/loop").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = ["corpus/a.txt", "./corpus/a.txt", "corpus/../corpus/a.txt", str(real), "link.txt", "hard.txt", "**/*.txt"]
    names += ["folder/a.txt", "*/a.txt", f"file://{real}", "corpus//a.txt"]
    for name in names:
        (file,) = setting(f"{name}, {','.join(names)}").corpus_files(FileDigests(tmp_path / "digests"))
        assert file.size == 4
        assert setting(f"{name},{real}").file().samefile(real)
    bucket = StoredDirectory(new_bucket())
    bucket.write("b/a.txt", b"text")
    both = f"{bucket.location}/b/a.txt,{bucket.location}/**,{bucket.location}/*/a.txt,{real}"
    assert len(setting(both).corpus_files(FileDigests(tmp_path / "digests"))) == 2


def test_names_of_all_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a[1].txt", "a,b.txt", "a\nb.txt", "*.txt", "%41.txt", "é.txt", " a b.txt"):
        (tmp_path / name).write_text("text")
        assert setting(f"{tmp_path}/{name}").file() == tmp_path / name
        assert setting(f"~/{name}").file() == tmp_path / name
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl")).write_text("text")
    files = setting(f"{tmp_path}/*").corpus_files(FileDigests(tmp_path / "digests"))
    assert len({file.digest() for file in files}) == 1 and len(files) == 8


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("full.txt,none.txt", "data.path=full.txt,none.txt: no file matches 'none.txt'"),
        ("empty.txt", "data.path=empty.txt: empty.txt is empty; remove it"),
        ("*.txt", "empty.txt is empty"),
        ("self", "cannot be read: .*[Tt]oo many levels of symbolic links"),
        ("gone", "cannot be read: .*No such file"),
        ("links/*", "cannot be read: .*No such file"),
        ("pipe", "pipe is no regular file"),
        ("/dev/zero", "/dev/zero is no regular file"),
        (" , ", "names no file"),
        ("", "names no file"),
        ("none\nof\x1b.txt", r"data.path=none\\nof\\x1b.txt: no file matches"),
        ("a\0b", "no file matches"),
        ("file://", "three slashes"),
        ("file://host/a", "three slashes"),
        ("nosuch://b/*", "cannot be listed: "),
        ("gs://", "'' is not the name of a bucket; write gs://bucket/path"),
        ("gs:///a/*", "'' is not the name of a bucket"),
        ("gs://*/a", "is not the name of a bucket"),
        ("gcs://A b/c", "'A b' is not the name of a bucket"),
        ("s3://", "is not the name of a bucket"),
        ("s3:///a", "is not the name of a bucket"),
        ("hf://", "is not the name of a bucket"),
    ],
)
def test_unusable_paths_are_named(value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full.txt").write_text("text")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as error:
        setting(value).corpus_files(FileDigests(tmp_path / "digests"))
    assert str(error.value).isprintable()


def test_one_file_is_asked_for(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text("text")
    assert setting(str(tmp_path / "a")).file() == tmp_path / "a"
    with pytest.raises(ConfigError, match="matches 2 files; name one"):
        setting(os.path.join(tmp_path, "*")).file()
    bucket = StoredDirectory(new_bucket())
    bucket.write("a", b"text")
    with pytest.raises(ConfigError, match=r"/a is not on this machine; copy it here first"):
        setting(f"{bucket.location}/a").file()
