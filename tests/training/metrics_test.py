import errno
import json
import math
import os

import pytest

from sparsejax.config import ConfigError
from sparsejax.training.metrics import RunLog, read_rows, spike_height
from sparsejax.training.metrics_rows import read_log


def test_a_resumed_log_forgets_the_rows_past_its_start(tmp_path):
    with RunLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write("train", step, {"loss": float(step), "seconds": 10.0 * step})
    with RunLog(tmp_path, 2) as log:
        assert log.previous_seconds == 20.0
        log.write("train", 3, {"loss": 30.0, "seconds": 21.0})
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1, "kind": "train"}) + '\n{"step": 2, "ki')
    assert read_rows(path) == [{"step": 1, "kind": "train"}]


def test_no_log_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "metrics.jsonl") == []


def test_spike_height_is_the_largest_rise_over_the_interval_before():
    # Interval means 3, 2, 1.5; the second interval peaks at 4 (a rise of 1 over 3), the third at 2.2 (0.2 over 2).
    rows = [
        {"kind": "train", "loss_mean": 3.0, "loss_max": 5.0},
        {"kind": "eval", "loss": 9.0},
        {"kind": "train", "loss_mean": 2.0, "loss_max": 4.0},
        {"kind": "train", "loss_mean": 1.5, "loss_max": 2.2},
    ]
    assert spike_height(rows) == 1.0
    assert spike_height(rows[:1]) == 0.0
    falling = [{"kind": "train", "loss_mean": m, "loss_max": m} for m in (3.0, 2.0, 1.0)]
    assert spike_height(falling) == 0.0
    skipped = {"kind": "train", "loss_mean": math.nan, "loss_max": math.nan}
    assert spike_height([skipped, *rows[:2], skipped, *rows[2:], skipped]) == 1.0


def test_scalars_reach_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(tmp_path, 0) as log:
        log.write("train", 1, {"loss": 2.5})
        log.write("rewire", 1, {"topology/rate": 0.25})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 2.5)]
    assert [(e.step, e.value) for e in events.Scalars("topology/rate")] == [(1, 0.25)]


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with RunLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write("train", step, {"loss": step / 3, "seconds": 1.0})
    content, rows = path.read_bytes(), read_rows(path)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(bytes(flipped))
        found = read_log(path)
        # A damaged line break joins two lines, or leaves a last line without one, as a kill does.
        assert found.damaged or found.rows == rows or found.rows == rows[:2], place
        assert all(row in rows for row in found.rows), place
    path.write_bytes(content.replace(b"0.666", b"0.667"))
    with pytest.raises(ConfigError, match="line 2 is not what was written"):
        read_rows(path)
    notices = []
    with RunLog(tmp_path, 3, notices.append):
        assert [row["step"] for row in read_rows(path)] == [1, 3]
    assert len(notices) == 1 and "line 2" in notices[0]


@pytest.mark.parametrize(
    "line", ["[1]", "3", '{"step": "1", "kind": "train"}', '{"kind": "eval"}', "[" * 10**5, "1" * 5000]
)
def test_lines_that_are_no_rows_are_damaged(line, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    assert read_log(tmp_path / "metrics.jsonl").damaged == [1]


def test_rows_of_older_versions_are_read_and_rows_are_strict_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "kind": "train", "loss": NaN, "grad_norm": Infinity}\n')
    with RunLog(tmp_path, 1) as log:
        log.write("train", 2, {"loss": math.nan, "grad_norm": -math.inf})
    strict = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert [row["not_finite"] for row in strict] == [
        {"loss": "nan", "grad_norm": "inf"},
        {"loss": "nan", "grad_norm": "-inf"},
    ]
    rows = read_rows(path)
    assert all(math.isnan(row["loss"]) for row in rows)
    assert [row["grad_norm"] for row in rows] == [math.inf, -math.inf]


def test_a_full_disk_is_told_by_the_name_of_the_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"metrics\.jsonl") as error, RunLog(tmp_path, 0) as log:
        log.write("train", 1, {"loss": 1.0})
        monkeypatch.setattr(os, "fsync", full)
        log.flush()
    assert error.value.errno == errno.ENOSPC
