"""A checkpoint that counts as saved survives a power cut: what was not synced is gone."""

import os
from pathlib import Path

import pytest

from sparsejax.training import workdir as rundir
from sparsejax.training.checkpoint import Checkpoints
from tests.training.checkpoint_test import ABSTRACT, CONFIG, state_at
from tests.training.tiny import tiny_run


class Disk:
    """What the disk holds: of a file its content, of a folder its names, both as of their last fsync."""

    def __init__(self, monkeypatch):
        self.files, self.folders, self.at_fsync = {}, {}, lambda: None
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor):
        self._fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        inode = os.fstat(descriptor).st_ino
        if path.is_dir():
            self.folders[inode] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self.files[inode] = path.read_bytes()
        self.at_fsync()

    def after_a_cut(self, folder, target):
        """Write what is left of ``folder``, which was there before, to ``target``."""
        self._restore(folder.stat().st_ino, target)
        return target

    def _restore(self, inode, target):
        target.mkdir()
        for name, entry in self.folders[inode].items() if inode in self.folders else ():
            if entry in self.folders or entry not in self.files:
                self._restore(entry, target / name)
            else:
                (target / name).write_bytes(self.files[entry])


@pytest.fixture
def run(tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    workdir.mkdir()
    disk = Disk(monkeypatch)
    rundir.write_manifest(workdir, tiny_run(tmp_path), 12, "data", "tokens")
    return workdir, disk


def newest(workdir, notices):
    with Checkpoints(workdir, keep_last=1, keep_every=0, notice=notices.append, owner=False) as checkpoints:
        state = checkpoints.restore(lambda _: ABSTRACT)
    return None if state is None else int(state.step)


def test_a_saved_step_and_its_config_are_whole(run, tmp_path):
    workdir, disk = run
    with Checkpoints(workdir, keep_last=3, keep_every=0, notice=print) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state_at(step), CONFIG)
            checkpoints.wait()
            left, notices = disk.after_a_cut(workdir, tmp_path / f"left{step}"), []
            assert newest(left, notices) == step and notices == []
            assert rundir.read_manifest(left)["steps"] == 12


def test_a_cut_at_any_moment_leaves_the_step_before(run, tmp_path):
    workdir, disk = run
    with Checkpoints(workdir, keep_last=3, keep_every=0, notice=print) as checkpoints:
        checkpoints.save(state_at(1), CONFIG)
        checkpoints.wait()
        cuts = []

        def cut():
            if len(cuts) < 40:
                cuts.append(disk.after_a_cut(workdir, tmp_path / f"cut{len(cuts)}"))

        disk.at_fsync = cut
        checkpoints.save(state_at(2), CONFIG)
        checkpoints.wait()
    found = [newest(left, []) for left in cuts[::3]] + [newest(cuts[-1], [])]
    assert found == sorted(found) and found[0] == 1 and found[-1] == 2


def test_nothing_is_removed_before_what_supersedes_it_is_on_the_disk(run, tmp_path, monkeypatch):
    workdir, disk = run
    removed, left = [], []

    def remove(self, step):
        removed.append(step)
        left.append(disk.after_a_cut(workdir, tmp_path / f"left{step}"))

    monkeypatch.setattr(Checkpoints, "_remove", remove)
    with Checkpoints(workdir, keep_last=1, keep_every=0, notice=print) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state_at(step), CONFIG)
    assert removed == [1] and [newest(each, []) for each in left] == [2]
