"""The benchmarks run, state their conditions, and refuse bad flags with exit code 2. Nothing here is timed."""

import json
import sys

import pytest

from benchmarks import block_matmul, growth_memory, measuring, memory, model_runs, step
from sparsejax.models.sizes import Size


@pytest.fixture
def tiny_size(monkeypatch):
    """A published size that compiles in seconds."""
    tiny = Size(name="60m", hidden=32, mlp=60, heads=2, layers=2, source="a test")
    monkeypatch.setitem(model_runs.SIZES, "60m", tiny)
    monkeypatch.setattr(model_runs, "VOCABULARY", 64)


def run(module, monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, flags)])
    module.main()


def test_programs_run_in_turn():
    order = []
    times = measuring.interleaved({name: lambda name=name: order.append(name) for name in "ab"}, repetitions=2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert len(times["a"].wall) == len(times["b"].processor) == 2


def test_block_matmul(monkeypatch, tmp_path, capsys):
    flags = ("--shape", 32, 16, "--tokens", 8, "--block", 8, 8, "--density", 0.5, "--repetitions", 1)
    run(block_matmul, monkeypatch, *flags, "--json", tmp_path / "rows.json")
    document = json.loads((tmp_path / "rows.json").read_text())
    assert {row["implementation"] for row in document["rows"]} == {"dense", "xla", "transient"}
    assert document["conditions"]["tokens"] == 8 and "machine" in document["conditions"]
    assert capsys.readouterr().out.count("\n") == 3 + len(document["rows"])


def test_memory(monkeypatch, tmp_path, tiny_size):
    run(memory, monkeypatch, "--size", "60m", "--density", 0.5, "--block", 8, "--json", tmp_path / "rows.json")
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert 0.5 < row["over_twin"] < 0.6 and row["whole_over_twin"] < 1


def test_growth_memory(monkeypatch, tmp_path, tiny_size):
    run(growth_memory, monkeypatch, "--size", "60m", "--block", 8, "--json", tmp_path / "rows.json")
    random, gradient, momentum = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert random["score"] == 0 < gradient["score"] and gradient["state"] == random["state"]
    # 7 kinds in 2 layers, 4 x 4 places and 4 x 8 in the MLP of 64: one float each.
    assert momentum["state"] - gradient["state"] == 4 * 2 * (4 * 16 + 3 * 32)


def test_step(monkeypatch, tmp_path, tiny_size):
    flags = ("--rows", 1, "--length", 8, "--block", 8, "--balance", "none", "--repetitions", 1, "--density", 0.5)
    run(step, monkeypatch, *flags, "--json", tmp_path / "rows.json")
    twin, sparse = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert (twin["density"], twin["over_twin"]) == (1.0, 1.0) and sparse["density"] == 0.5


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        (block_matmul, ["--block", "7", "7"]),
        (block_matmul, ["--density", "0"]),
        (memory, ["--density", "2"]),
        (memory, ["--size", "61m"]),
        (growth_memory, ["--density", "1"]),
        (step, ["--density", "1"]),
        (step, ["--repetitions", "0"]),
    ],
)
def test_bad_flags_exit_2(monkeypatch, capsys, module, flags):
    monkeypatch.setattr(sys, "argv", ["benchmark", *flags])
    with pytest.raises(SystemExit) as exit_:
        module.parse_arguments()
    assert exit_.value.code == 2
    assert "error:" in capsys.readouterr().err
