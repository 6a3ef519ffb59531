"""A run directory in a bucket: what process 0 writes there, on a file system that only looks like one."""

from typing import ClassVar

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sparsejax.config import ConfigError
from sparsejax.data.tokenizer import ByteTokenizer, load_tokenizer
from sparsejax.training import workdir as rundir
from sparsejax.training.metrics import RunLog, read_rows
from tests.training.tiny import tiny_run


class Bucket(MemoryFileSystem):
    """Objects in memory under gs:// names. Like the real one it has no appending."""

    protocol = ("gcs", "gs")
    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(str(path).removeprefix("gs://"))

    def open(self, path, mode="rb", **options):
        assert "a" not in mode, f"{path}: objects cannot grow"
        return super().open(path, mode, **options)


@pytest.fixture(scope="module", autouse=True)
def registered():
    fsspec.register_implementation("gcs", Bucket, clobber=True)


@pytest.fixture
def workdir():
    Bucket.store.clear()
    return rundir.run_directory("gs://bucket/runs/one")


def test_anything_with_a_scheme_is_a_url(tmp_path, workdir):
    assert isinstance(workdir, epath.Path) and str(workdir) == "gs://bucket/runs/one"
    assert rundir.absolute(workdir) is workdir
    assert rundir.run_directory(str(tmp_path)) == tmp_path


def test_the_manifest_and_the_tokenizer_come_back(tmp_path, workdir):
    run = tiny_run(tmp_path)
    with rundir.claimed(workdir):
        assert rundir.read_manifest(workdir) is None
        rundir.write_manifest(workdir, run, 12, "d" * 64, "t" * 64)
        ByteTokenizer().save(workdir / "tokenizer")
        rundir.check_continues(workdir, run, extend=False)
    assert rundir.read_manifest(workdir)["steps"] == 12
    assert load_tokenizer(workdir / "tokenizer").digest == ByteTokenizer.digest
    with pytest.raises(ConfigError, match=r"optim\.lr: 0\.01 -> 0\.5"):
        rundir.check_continues(workdir, tiny_run(tmp_path, optim_lr=0.5), extend=False)


def test_a_mark_is_seen_only_where_it_was_left(workdir):
    mark = rundir.new_mark()
    rundir.leave_mark(workdir, mark)
    rundir.check_mark(workdir, mark)
    rundir.remove_mark(workdir, mark)
    with pytest.raises(ConfigError, match="gs://bucket/runs/one: is not the directory that process 0 writes to"):
        rundir.check_mark(workdir, mark)


def test_rows_and_curves_reach_the_bucket_with_every_flush_and_a_resumed_log_goes_on(tmp_path, workdir):
    with RunLog(workdir, 0) as log:
        for step in (1, 2, 3):
            log.write("train", step, {"loss": float(step), "seconds": 10.0 * step})
        assert read_rows(workdir / "metrics.jsonl") == []
        log.flush()
        assert [row["step"] for row in read_rows(workdir / "metrics.jsonl")] == [1, 2, 3]
        log.write("train", 4, {"loss": 4.0, "seconds": 40.0})
    with RunLog(workdir, 2) as log:
        assert log.previous_seconds == 20.0
        log.write("train", 3, {"loss": 30.0, "seconds": 21.0})
    assert [(row["step"], row["loss"]) for row in read_rows(workdir / "metrics.jsonl")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 30.0),
    ]
    # Both sessions left their events; as on a disk, the second takes back what came after its start.
    for path in (workdir / "tensorboard").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    points = EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_bucket_that_cannot_be_reached_is_one_line(monkeypatch, workdir):
    def refuse(*args, **options):
        raise PermissionError("403: no\nsecond line")

    monkeypatch.setattr(Bucket, "makedirs", refuse)
    monkeypatch.setattr(Bucket, "mkdir", refuse)
    with pytest.raises(ConfigError) as error, rundir.claimed(workdir):
        pass
    assert str(error.value) == "--workdir=gs://bucket/runs/one: cannot be used (403: no); choose another"
