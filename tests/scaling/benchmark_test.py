"""The benchmark of fits runs and states what it did; nothing is timed here."""

import json
import sys

from benchmarks import scaling_fit


def test_both_ways_are_shown(monkeypatch, tmp_path, capsys):
    flags = ["--timed-starts", "1", "--bootstrap", "32", "--json", str(tmp_path / "rows.json")]
    monkeypatch.setattr(sys, "argv", ["benchmark", *flags])
    scaling_fit.main()
    shown = capsys.readouterr().out
    assert "chinchilla: 25 runs of the design of chinchilla" in shown and "ours, bootstrap: " in shown
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["objective"] <= row["published_objective"] * (1 + 1e-9) and row["published_starts"] == 4500
