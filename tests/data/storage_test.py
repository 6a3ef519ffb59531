"""Files behind URIs: this machine's own, and a bucket (see ``new_bucket``)."""

import hashlib
import io
from pathlib import Path

import pytest

from sparsejax.data.storage import StoredDirectory, _filesystem, is_uri, stored_files
from tests.data.conftest import new_bucket


@pytest.fixture(params=["path", "file", "bucket"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A directory that is not there yet, named in each of the ways there are."""
    if request.param == "path":
        return str(tmp_path / "set")
    return f"file://{tmp_path}/set" if request.param == "file" else new_bucket()


def test_what_a_uri_is() -> None:
    assert is_uri("gs://bucket/c4") and is_uri("hf://datasets/allenai/c4/en/*.json.gz")
    assert not is_uri("/data/a://b") and not is_uri("://b") and not is_uri("file:///data/c4")
    assert not is_uri("/data/c4") and not is_uri("c4:en@train") and not is_uri("a:b/c")


def test_files_come_back_as_they_were_written(location: str, tmp_path: Path) -> None:
    directory = StoredDirectory(location)
    assert directory.sizes() == {}
    directory.write("shards/a", b"0123456789")
    (tmp_path / "local").write_bytes(b"local")
    directory.write_file("b", tmp_path / "local")
    assert directory.sizes() == {"shards/a": 10, "b": 5}
    assert directory.read("b") == b"local"
    assert directory.read_range("shards/a", 3, 4) == b"3456"
    assert directory.read_range("shards/a", 8, 4) == b"89"
    copy = io.BytesIO()
    assert directory.copy_to("shards/a", copy) == hashlib.sha256(b"0123456789").hexdigest()
    assert copy.getvalue() == b"0123456789"
    directory.write("b", b"another")
    assert StoredDirectory(location + "/").read("b") == b"another"
    directory.remove_folder("shards")
    directory.remove_folder("shards")
    assert list(directory.sizes()) == ["b"]
    with pytest.raises(OSError, match="a"):
        directory.read("shards/a")


def test_half_a_file_is_no_file(location: str, tmp_path: Path) -> None:
    directory = StoredDirectory(location)
    directory.write("a", b"whole")
    with pytest.raises(FileNotFoundError):
        directory.write_file("b", tmp_path / "missing")
    with pytest.raises(TypeError):
        directory.write("a", None)
    assert directory.sizes() == {"a": 5} and directory.read("a") == b"whole"
    # What a killed process leaves behind.
    directory._filesystem.open_output_stream(directory._path("c.partial-1234")).close()
    assert directory.sizes() == {"a": 5}


def test_stored_files(tmp_path: Path) -> None:
    location = new_bucket()
    directory = StoredDirectory(location)
    for name in ("1.json", "0.json"):
        directory.write(name, name.encode())
    found = stored_files(f"{location}/*.json")
    assert [file.uri for file in found] == [f"{location}/{number}.json" for number in (0, 1)]
    assert found[0].size == len("0.json") and found[0].stamp != found[1].stamp
    copy = io.BytesIO()
    digest = hashlib.sha256(b"0.json").hexdigest()
    assert found[0].copy_to(copy) == found[0].copy_to(None) == digest and copy.getvalue() == b"0.json"
    with found[0].opened() as file:
        assert file.read(2) == b"0."


@pytest.mark.parametrize("name", ["books#2", "a?b", "a%41 b", "a;b&c=d"])
def test_directories_are_named_letter_by_letter(name: str, tmp_path: Path) -> None:
    for location in (f"{tmp_path}/{name}", f"file://{tmp_path}/{name}/in"):
        StoredDirectory(location).write("file", b"content")
    assert (tmp_path / name / "file").read_bytes() == (tmp_path / name / "in/file").read_bytes() == b"content"
    assert _filesystem(f"gs://bucket/{name}/x")[1] == f"bucket/{name}/x"
    for location in ("gs://", "gs:///set", "s3://", "file://set"):
        with pytest.raises(OSError, match=location):
            StoredDirectory(location)
