import json

from sparsejax.training.metrics import RunLog, read_rows, spike_height


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


def test_scalars_reach_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(tmp_path, 0) as log:
        log.write("train", 1, {"loss": 2.5})
        log.write("rewire", 1, {"topology/rate": 0.25})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 2.5)]
    assert [(e.step, e.value) for e in events.Scalars("topology/rate")] == [(1, 0.25)]
