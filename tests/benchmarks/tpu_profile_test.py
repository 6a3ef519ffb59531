"""The profile of a train step compiled for a TPU that is not here."""

import json
import sys

import pytest

from benchmarks import model_runs, tpu_profile
from benchmarks.hlo_cost import PARTS
from sparsejax.models.sizes import Size


@pytest.mark.slow
@pytest.mark.tpu
def test_every_part_of_a_small_step_has_a_cost(monkeypatch, tmp_path, capsys):
    tiny = Size(name="60m", hidden=256, mlp=512, heads=4, layers=2, source="a test")
    monkeypatch.setitem(model_runs.SIZES, "60m", tiny)
    monkeypatch.setattr(model_runs, "VOCABULARY", 512)
    flags = ("--size", "60m", "--chip", "v5e", "--density", "1", "0.5", "--implementation", "pallas_tpu")
    flags += ("--rows", "2", "--length", "128", "--json", str(tmp_path / "rows.json"))
    monkeypatch.setattr(sys, "argv", ["benchmark", *flags])
    tpu_profile.main()
    dense, sparse = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert (dense["linears"], sparse["linears"]) == ("dense", "pallas_tpu@v5e")
    assert dense["cycles_over_first"] == 1 and dense["attention"] == sparse["attention"] == "splash"
    for row in (dense, sparse):
        assert sum(row["share"].values()) == pytest.approx(1)
        assert min(row["share"].values()) > 0 and set(PARTS) < set(row["share"])
    assert capsys.readouterr().out.count("splash") == 2


def test_only_tpus_are_profiled(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--chip", "h200"])
    with pytest.raises(SystemExit) as caught:
        tpu_profile.main()
    assert caught.value.code == 2 and "tpu7x" in capsys.readouterr().err
