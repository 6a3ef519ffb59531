"""Every flag that names an output, in every command: tried first, never replaced without ``--overwrite``."""

import errno
import io
import json
from pathlib import Path

import pytest

from sparsejax.cli.console import plain_console
from sparsejax.cli.main import main
from tests.files.outputs_test import snapshot
from tests.interop.hub import write_hub

# Command, its output flag, what is written there (a file, files in a folder, a whole folder), its other flags.
WRITERS = [
    ("generate", "--out", "file", ["--workdir=absent", "--prompt=a"]),
    ("export", "--out", "sparsejax.json", ["--workdir=absent"]),
    ("evaluate", "--out", "report.md", ["--workdir=absent"]),
    ("compare", "--out", "file", ["--runs=absent"]),
    ("average", "--out", "average.json", ["--runs=absent,other"]),
    ("harness", "--out", "file", ["--workdir=absent", "--tasks=a"]),
    ("branch", "--out", "file", ["--workdir=absent"]),
    ("check", "--json", "file", ["--config=absent.py", "--hardware=h100:1"]),
    ("fit", "--out", "fit.json", ["--rows=absent"]),
    ("fit", "--save-rows", "file", ["--rows=absent", "--out=fits"]),
]


def error_of(capsys, command, flag, place, others):
    code = main([command, f"{flag}={place}", *others])
    printed = capsys.readouterr().err
    assert code == 2 and printed.count("\n") == 1 and printed.startswith("sparsejax: "), printed
    return printed


@pytest.fixture
def room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("precious")
    return tmp_path


@pytest.mark.parametrize(("command", "flag", "kind", "others"), WRITERS)
@pytest.mark.parametrize("obstacle", ["", "taken/below", "http://host/a", "n" * 300])
def test_a_place_that_cannot_be_made_is_one_line_before_the_work(room, capsys, command, flag, kind, others, obstacle):
    before = snapshot(room)
    assert f"{flag}={obstacle[:100]}" in error_of(capsys, command, flag, obstacle, others)
    assert snapshot(room) == before


@pytest.mark.parametrize(("command", "flag", "kind", "others"), WRITERS)
def test_what_is_there_is_replaced_only_when_asked(room, capsys, monkeypatch, command, flag, kind, others):
    monkeypatch.setattr("sparsejax.interop.harness.require_package", lambda: None)
    place = room / "place"
    if kind == "file":
        place.write_text("precious")
    else:
        place.mkdir()
        (place / kind).write_text("precious")
        (place / "notes").write_text("precious")
    before = snapshot(room)
    assert "exists already; choose another, or replace it with --overwrite" in error_of(
        capsys, command, flag, place, others
    )
    # What the work itself lacks is the next thing to be said.
    assert "absent" in error_of(capsys, command, flag, place, [*others, "--overwrite"])
    assert "absent" in error_of(capsys, command, flag, room / "new" / "place", others)
    assert snapshot(room) == before


@pytest.mark.parametrize("workdir", ["place", "n" * 300])
def test_the_tables_of_a_sweep_are_tried_before_it_runs(room, capsys, workdir):
    (room / "place" / "summary.csv").mkdir(parents=True)
    config = Path(__file__).resolve().parents[2] / "configs/ablations/density.py"
    assert "--workdir=" in error_of(capsys, "sweep", "--workdir", workdir, [f"--config={config}"])


class Full(io.StringIO):
    """A standard output on a full disk."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self._file = place.open("w")

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fileno(self) -> int:
        return self._file.fileno()


def test_a_file_is_written_though_nothing_can_be_printed(room, monkeypatch):
    write_hub(room / "model")
    monkeypatch.setattr("sys.stdout", Full(room / "stdout"))
    flags = ["generate", f"--workdir={room / 'model'}", "--tokens=0", "--prompt=\u00fcn\u00ef"]
    assert main([*flags, f"--out={room / 'texts.jsonl'}"]) == 0
    assert json.loads((room / "texts.jsonl").read_text())["prompt"] == "\u00fcn\u00ef"
    # Without a file the output is all there is.
    assert main(flags) == 74


def test_names_are_printed_as_they_are(capsys):
    plain_console().print("runs/[b]a[/x] :smile: [1]", soft_wrap=True)
    assert capsys.readouterr().out == "runs/[b]a[/x] :smile: [1]\n"


def test_texts_and_fits_are_inputs_too(room, capsys):
    (room / "notes").mkdir()
    (room / "notes" / "report.md").write_text("a text")
    flags = ["--workdir=absent", "--text=notes=notes/report.md", "--overwrite"]
    assert "is an input" in error_of(capsys, "evaluate", "--out", "notes", flags)
