"""A run directory is one run: its name, its config and its checkpoints are those of this run, or are refused."""

import json
import shutil
from pathlib import Path

import pytest

from sparsejax.config import ConfigError
from sparsejax.training import workdir as rundir
from sparsejax.training.restore import check_runs, restore_run
from sparsejax.training.trunk import check_trunks
from tests.interop.untrained import write_run
from tests.training.checkpoint_test import ABSTRACT, open_checkpoints, saved, state_at
from tests.training.tiny import tiny_run

LEGAL = (
    *(
        "a[16]",
        "[!a]",
        "a*b",
        "a?b",
        "a\\b",
        "a b",
        "100%",
        "%41",
        "é漢字",
        "a#b",
        "a:b",
        "a,b",
        "{b}",
        "$c;&|",
        "it's",
    ),
    *('"q"', "-x", ".hidden", "..x", "a" * 255, "a/../b", "a/./b/", "x~"),
)
REFUSED = {
    "": "names no place",
    " ": "names no place",
    "a\nb": "control character",
    "a\0b": "control character",
    "a\x1b[31m": "control character",
    "a\u2028b": "control character",
    "a\udcffb": "control character",
    "file://host/a": "names no path of this machine",
    "file:a": "names no path of this machine",
    "gs:/bucket/a": r"write gs://bucket",
    "gs://": r"write gs://bucket",
    "http://a/b": "no such store",
    "~nobody-of-this-name/a": "no such home directory",
    "a" * 256: "is too long",
    "a/" * 2000: "is too long",
}


@pytest.mark.parametrize("name", LEGAL)
def test_what_is_saved_under_a_legal_name_is_read(name, tmp_path):
    workdir = rundir.run_directory(f"{tmp_path}/{name}")
    (tmp_path / "a").mkdir(exist_ok=True)
    saved(workdir, [1])
    with open_checkpoints(workdir, []) as checkpoints:
        assert int(checkpoints.restore(lambda _: ABSTRACT).step) == 1


@pytest.mark.parametrize("name", REFUSED)
def test_other_names_are_refused_in_one_line(name):
    with pytest.raises(ConfigError, match=REFUSED[name]) as error:
        rundir.run_directory(name, "trunk")
    assert str(error.value).startswith("--trunk=") and str(error.value).isprintable()


def test_names_of_homes_and_buckets(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert rundir.run_directory("~/a") == rundir.run_directory(f"file://{tmp_path}/a") == tmp_path / "a"
    assert str(rundir.run_directory("gs://bucket/a")) == "gs://bucket/a" and rundir.run_directory(".") == Path()


EDITS = {
    "rope_base": 500.0,
    "rms_eps": 1e-3,
    "heads": 1,
    "sequence_length": 8,
    "method": "set",
    "data_digest": "0" * 64,
    "tokenizer_digest": "0" * 64,
    "init": 7,
    "steps": 5,
}


def edited(manifest, key, value):
    """The manifest with another value of ``key``, wherever it stands."""
    sections = [manifest, *manifest["config"].values()]
    (place, *_) = [section for section in sections if key in section and not isinstance(section[key], dict)]
    assert place[key] != value
    return place, key, value


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir, _ = write_run(tmp_path_factory.mktemp("edits"))
    return workdir


@pytest.mark.parametrize("checked", [True, False], ids=["checked", "as by an older version"])
@pytest.mark.parametrize("key", EDITS)
def test_every_reader_refuses_a_config_that_was_changed_by_hand(key, checked, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    manifest = json.loads((workdir / "config.json").read_text())
    place, name, value = edited(manifest, key, EDITS[key])
    place[name] = value
    if not checked:
        del manifest["check"]
    (workdir / "config.json").write_text(json.dumps(manifest))
    for reader in (
        lambda: restore_run(workdir, print),
        lambda: check_runs([workdir]),
        lambda: check_trunks([workdir]),
    ):
        with pytest.raises(ConfigError, match=f"{key}: ") as error:
            reader()
        assert "\n" not in str(error.value) and "put the old values back" in str(error.value)
    if key == "rope_base":
        # Training neither, by the settings that the file now names.
        with pytest.raises(ConfigError, match="rope_base"):
            rundir.check_continues(workdir, tiny_run(tmp_path, model_rope_base=500.0), extend=False)


def test_what_a_machine_decides_may_be_changed(trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    manifest = json.loads((workdir / "config.json").read_text())
    manifest["config"]["data"].update(path="elsewhere", cache_dir="/other")
    (workdir / "config.json").write_text(json.dumps(manifest))
    assert restore_run(workdir, print).run.data.path == "elsewhere"


def test_checkpoints_without_their_config_are_continued_by_their_own_copy(trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    before = rundir.read_manifest(workdir)
    (workdir / "config.json").unlink()
    found = rundir.started_with(workdir)
    assert {name: found[name] for name in ("config", "steps", "data_digest")} == {
        name: before[name] for name in ("config", "steps", "data_digest")
    }
    with pytest.raises(ConfigError, match="another config"):
        rundir.check_continues(workdir, tiny_run(tmp_path, optim_lr=0.5), extend=True)
    with pytest.raises(ConfigError, match="data_digest was"):
        rundir.check_same_data(workdir, "else", before["tokenizer_digest"])


@pytest.mark.parametrize(
    ("length", "extend", "said"),
    [
        ({"train_steps": 20}, False, "needs --extend"),
        ({"train_steps": 5}, False, "cannot become shorter"),
        ({"train_steps": 5}, True, "cannot become shorter"),
        ({"train_steps": 0, "train_epochs": 9.0}, True, "keeps its unit"),
        ({"train_steps": 0, "train_epochs": 9.0}, False, "keeps its unit"),
    ],
)
def test_other_lengths(length, extend, said, tmp_path):
    rundir.write_manifest(tmp_path, tiny_run(tmp_path), 12, "data", "tokens")
    with pytest.raises(ConfigError, match=said) as error:
        rundir.check_continues(tmp_path, tiny_run(tmp_path, **length), extend=extend)
    assert said == "needs --extend" or "--extend" not in str(error.value)


def test_what_was_kept_for_good_stays(tmp_path):
    kept = {"optim": {"lr": 0.1}, "train": {"keep_every": 2}}
    with open_checkpoints(tmp_path, [], keep_last=1) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(state_at(step), kept)
    with open_checkpoints(tmp_path, [], keep_last=1, keep_every=5) as checkpoints:
        for step in (5, 6, 7):
            checkpoints.save(state_at(step), {"train": {"keep_every": 5}})
        checkpoints.wait()
        assert checkpoints.steps == [2, 4, 5, 7]


def test_left_overs_of_a_killed_run_go(tmp_path):
    mine = {"notes.tmp", ".hidden.3", ".result.json", "result.json"}
    gone = {".result.json.77", ".config.json.12.tmp", "config.json.tmp", "metrics.jsonl.tmp", ".mark-0123456789abcdef"}
    for name in mine | gone:
        (tmp_path / name).touch()
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / ".tokenizer_meta.json.5.tmp").touch()
    rundir.remove_left_overs(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == mine | {"tokenizer"}
    assert not any((tmp_path / "tokenizer").iterdir())
