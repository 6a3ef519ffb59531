import dataclasses
import json

import pytest

from sparsejax.config import ConfigError
from sparsejax.training import workdir as rundir
from tests.training.tiny import tiny_run


@pytest.fixture
def started(tmp_path):
    run = tiny_run(tmp_path)
    rundir.write_manifest(tmp_path, run, 12, "data", "tokens")
    return tmp_path, run


def changed(run, section, **values):
    return dataclasses.replace(run, **{section: dataclasses.replace(getattr(run, section), **values)})


def test_the_same_config_continues(started):
    workdir, run = started
    rundir.check_continues(workdir, run, extend=False)
    rundir.check_same_data(workdir, "data", "tokens")


def test_the_commits_that_trained_a_run_are_kept_in_order(started):
    workdir, run = started
    assert rundir.read_manifest(workdir)["git_commits"] == []
    rundir.add_commits(workdir, ["b"])
    rundir.write_manifest(workdir, run, 20, "data", "tokens")
    rundir.add_commits(workdir, ["", "a", "b"])
    manifest = rundir.read_manifest(workdir)
    assert manifest["git_commits"] == ["b", "a"] and manifest["steps"] == 20


def test_a_new_directory_has_nothing_to_check(tmp_path):
    assert rundir.read_manifest(tmp_path) is None
    rundir.check_continues(tmp_path, tiny_run(tmp_path), extend=False)
    rundir.check_same_data(tmp_path, "any", "thing")


def test_every_differing_semantic_key_is_named(started):
    workdir, run = started
    other = changed(changed(run, "optim", lr=0.5), "topology", density=0.25)
    with pytest.raises(ConfigError) as error:
        rundir.check_continues(workdir, other, extend=False)
    text = str(error.value)
    assert "optim.lr: 0.01 -> 0.5" in text and "topology.density: 0.5 -> 0.25" in text and "\n" not in text


def test_bookkeeping_may_change(started):
    workdir, run = started
    other = changed(changed(run, "train", log_every=7, keep_last=1), "model", implementation="transient")
    rundir.check_continues(workdir, other, extend=False)


def test_more_steps_need_extend_and_fewer_are_refused(started):
    workdir, run = started
    longer, shorter = changed(run, "train", steps=20), changed(run, "train", steps=5)
    with pytest.raises(ConfigError, match="needs --extend"):
        rundir.check_continues(workdir, longer, extend=False)
    rundir.check_continues(workdir, longer, extend=True)
    with pytest.raises(ConfigError, match=r"train\.steps: 12 -> 5"):
        rundir.check_continues(workdir, shorter, extend=True)


def test_a_falling_density_cannot_be_made_longer(tmp_path):
    run = tiny_run(tmp_path, topology_density_schedule="cubic", topology_grow="none", topology_drop="magnitude")
    rundir.write_manifest(tmp_path, run, 12, "data", "tokens")
    rundir.check_continues(tmp_path, run, extend=True)
    with pytest.raises(ConfigError, match=r"steps: 12 -> 20.*density_schedule=cubic follows the length"):
        rundir.check_continues(tmp_path, changed(run, "train", steps=20), extend=True)


def test_extend_does_not_excuse_other_changes(started):
    workdir, run = started
    other = changed(changed(run, "train", steps=20), "optim", lr=0.5)
    with pytest.raises(ConfigError, match=r"optim\.lr"):
        rundir.check_continues(workdir, other, extend=True)


def test_other_data_is_refused(started):
    workdir, _ = started
    with pytest.raises(ConfigError, match="data_digest was data"):
        rundir.check_same_data(workdir, "else", "tokens")
    with pytest.raises(ConfigError, match="tokenizer_digest was tokens"):
        rundir.check_same_data(workdir, "data", "else")


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"schema": 1}), json.dumps({"schema": 99})])
def test_a_foreign_config_json_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError) as error:
        rundir.read_manifest(tmp_path)
    assert "\n" not in str(error.value)


def test_a_directory_is_used_by_one_process(tmp_path):
    with (
        rundir.claimed(tmp_path / "run"),
        pytest.raises(ConfigError, match="another process"),
        rundir.claimed(tmp_path / "run"),
    ):
        pass
    with rundir.claimed(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ConfigError, match="cannot be used"), rundir.claimed(tmp_path / "run"):
        pass
    assert (tmp_path / "run").read_text() == "mine"
