"""A run directory is opened on other devices than those that trained it."""

import jax
import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.training.restore import restore_run
from sparsejax.training.workdir import read_manifest
from tests.interop.untrained import write_run


@pytest.fixture
def trained(tmp_path):
    return write_run(tmp_path)


def test_a_run_of_another_kind_of_device_is_opened_here(trained):
    workdir, _ = trained
    before, notices = restore_run(workdir, print), []
    manifest = (workdir / "config.json").read_text()
    for key, elsewhere in (("implementation", "pallas_tpu"), ("attention", "splash")):
        (workdir / "config.json").write_text(manifest.replace(f'"{key}": "auto"', f'"{key}": "{elsewhere}"'))
        there = restore_run(workdir, notices.append)
        assert notices[-1].startswith(f"trained with model.{key}={elsewhere}: ") and "auto is used" in notices[-1]
        assert getattr(there.run.model, key) == elsewhere and getattr(there.recipe.run.model, key) == "auto"
        assert dict(there.recipe.implementations) == dict(before.recipe.implementations)
        assert all(map(np.array_equal, jax.tree.leaves(there.state.params), jax.tree.leaves(before.state.params)))
    assert len(notices) == 2


def test_what_was_chosen_is_kept_where_it_exists(trained):
    workdir, _ = trained
    manifest = (workdir / "config.json").read_text()
    (workdir / "config.json").write_text(manifest.replace('"implementation": "auto"', '"implementation": "xla"'))
    notices = []
    assert set(restore_run(workdir, notices.append).recipe.implementations.values()) == {"xla"}
    assert not notices


def test_directories_without_a_run_or_a_checkpoint(trained, tmp_path):
    workdir, _ = trained
    with pytest.raises(ConfigError, match="holds no run"):
        restore_run(tmp_path / "none", print)
    (workdir / "checkpoints").rename(tmp_path / "away")
    assert read_manifest(workdir) is not None
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        restore_run(workdir, print)
