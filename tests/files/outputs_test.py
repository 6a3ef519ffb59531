"""An output is tried before the work, never replaces what is there unasked, and appears whole or not at all."""

import os
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.files.outputs import OutputFile, Outputs
from tests.training.bucket_test import Bucket, registered  # noqa: F401

KINDS = {
    "file": lambda outputs, text: outputs.file("out", text),
    "files": lambda outputs, text: outputs.files("out", text, ("fit.json", "report.md")),
    "tree": lambda outputs, text: outputs.tree("out", text, "mark.json"),
}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def fill(place, kind: str, content: str = "new") -> None:
    output = KINDS[kind](Outputs(True), place)
    if kind == "file":
        output.write(content)
    elif kind == "files":
        output.write({"fit.json": content})
    else:
        with output.filled() as folder:
            (folder / "mark.json").write_text(content)
            (folder / "below").mkdir()
            (folder / "below" / "a.bin").write_bytes(b"\0")


@pytest.fixture
def room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("precious")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "place", ["", "taken/below", "n" * 300, "taken/", "http://host/a", "a\0b", "loop/below", "file://host/a", "/proc/a"]
)
def test_what_cannot_be_made_is_one_line_and_leaves_nothing(room, kind, place, overwrite):
    before = snapshot(room)
    with pytest.raises(ConfigError, match=r"^--out=") as error:
        KINDS[kind](Outputs(overwrite), place)
    assert "\n" not in str(error.value)
    assert snapshot(room) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["new", "a/b/c", "~/new", "ünï [x] * \\", "-", "gs://bucket/a/b"])
def test_what_can_be_made_is_made_when_it_is_written(room, kind, place, monkeypatch):
    monkeypatch.setenv("HOME", str(room / "home"))
    Bucket.store.clear()
    before = snapshot(room)
    KINDS[kind](Outputs(False), place)
    assert snapshot(room) == before and not Bucket.store
    fill(place, kind)
    refused = "exists already; choose another, or replace it with --overwrite"
    with pytest.raises(ConfigError, match=refused):
        KINDS[kind](Outputs(False), place)
    fill(place, kind, "newer")
    target = Path(os.path.expanduser(place))
    where = {"file": target, "files": target / "fit.json", "tree": target / "mark.json"}[kind]
    if place.startswith("gs:"):
        name = "/" + str(where).removeprefix("gs:/")
        assert bytes(Bucket.store[name].getvalue()) == b"newer"
        assert not [key for key in Bucket.store if "tmp" in key]
    else:
        assert where.read_text() == "newer"
        assert not [path for path in room.rglob(".*")]


def test_folders_of_others_are_not_replaced_and_a_failure_leaves_the_old(room):
    for kind, match in (("file", "is a folder"), ("tree", r"holds no mark\.json")):
        with pytest.raises(ConfigError, match=match):
            KINDS[kind](Outputs(True), "folder")
    for kind in ("files", "tree"):
        with pytest.raises(ConfigError, match="is a file; name a folder"):
            KINDS[kind](Outputs(True), "taken")
    fill("tree", "tree")
    before = snapshot(room)
    with pytest.raises(KeyboardInterrupt), Outputs(True).tree("out", "tree", "mark.json").filled() as folder:
        (folder / "half").write_text("")
        raise KeyboardInterrupt
    with pytest.raises(OSError), Outputs(False).tree("out", "x/y", "mark.json").filled() as folder:
        raise OSError("disk full")
    assert snapshot(room) == before
    # Names that are free in a folder of others may be written.
    fill("folder", "files")
    assert (room / "folder" / "mine.txt").read_text() == "precious"


def test_files_of_a_report_appear_together_and_none_of_an_older_one_stays(room, monkeypatch):
    names = ("fit.json", "report.md")
    Outputs(False).files("out", "folder", names).write({"fit.json": "1", "report.md": "2"})
    before = snapshot(room)
    written = []

    def full(path, content):
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        path.write_text(content)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr("sparsejax.files.outputs.replace_file", full)
        Outputs(True).files("out", "folder", names).write({"fit.json": "3", "report.md": "4"})
    assert snapshot(room) == before
    Outputs(True).files("out", "folder", names).write({"fit.json": "5"})
    assert snapshot(room)["folder/fit.json"] == b"5" and "folder/report.md" not in snapshot(room)
    assert (room / "folder" / "mine.txt").read_text() == "precious"


def test_an_empty_folder_is_filled_and_keeps_its_place(room):
    (room / "mount").mkdir()
    inode = (room / "mount").stat().st_ino
    fill("mount", "tree")
    assert (room / "mount").stat().st_ino == inode and (room / "mount" / "below" / "a.bin").exists()
    assert [path.name for path in sorted((room / "mount").iterdir())] == ["below", "mark.json"]


def test_inputs_are_never_replaced_nor_one_output_by_another(room):
    run = room / "run"
    (run / "checkpoints" / "1").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "texts.jsonl", "checkpoints/1/a"):
        (run / name).write_text("")
    for place in ("taken", "./taken", "run/config.json", "run/model.safetensors", "run/checkpoints/1/a"):
        with pytest.raises(ConfigError, match="is an input"):
            Outputs(True, [run, "taken"]).file("out", place)
    for place in ("run", "."):
        with pytest.raises(ConfigError, match="is an input of this command, or holds one"):
            Outputs(True, [run]).tree("out", place, "mark.json")
    outputs = Outputs(True, [run])
    outputs.file("out", "run/texts.jsonl")
    with pytest.raises(ConfigError, match="place of another output"):
        outputs.file("json", "run/../run/texts.jsonl")


def test_links_stay_and_devices_take_bytes(room):
    (room / "link").symlink_to("taken")
    with pytest.raises(ConfigError, match="exists already"):
        Outputs(False).file("out", "link")
    OutputFile(room / "link").write("new")
    assert (room / "link").is_symlink() and (room / "taken").read_text() == "new"
    Outputs(False).file("out", "/dev/null").write("gone")
    assert Path("/dev/null").is_char_device()
    read, write = os.pipe()
    Outputs(False).file("out", f"/dev/fd/{write}").write("through a pipe")
    assert os.read(read, 100) == b"through a pipe"
    os.close(read)
    os.close(write)
