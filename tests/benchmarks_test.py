"""The benchmarks run, state their conditions, and refuse bad flags with exit code 2. Nothing here is timed."""

import json
import sys

import jax
import pytest

from benchmarks import decode, growth_memory, kernels, measuring, memory, model_runs, products, rewiring, step
from sparsejax.models.sizes import Size
from sparsejax.topology.blocks import BlockGrid


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


@pytest.mark.slow
def test_kernels(monkeypatch, tmp_path, capsys):
    flags = ("--shape", 32, 16, "--tokens", 8, "--block", 8, 8, "--density", 0.5, 0.25, "--repetitions", 1)
    products = ("--product", "dv", "both")
    run(kernels, monkeypatch, *flags, *products, "--calls", 3, "--json", tmp_path / "rows.json")
    document = json.loads((tmp_path / "rows.json").read_text())
    wanted = [("dense", 1), ("xla", 0.5), ("transient", 0.5), ("xla", 0.25), ("transient", 0.25)]
    assert [(row["implementation"], row["density"]) for row in document["rows"]] == 2 * wanted
    # A CPU has no memory bandwidth in the table of chips.
    assert {row["floor_ms"] for row in document["rows"]} == {None}
    assert document["conditions"]["runs"][0]["tokens"] == 8 and "machine" in document["conditions"]["runs"][0]
    assert capsys.readouterr().out.count("\n") == 3 + len(document["rows"])


def test_layers_are_named_after_sizes():
    assert products.layer_shape("1b/mlp.down", (128, 128)) == (5504, 2048)
    assert products.layer_shape("7b/attention.q", (128, 128)) == (4096, 4096)


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
@pytest.mark.parametrize("module", [kernels, step])
def test_presets_are_legal_flags(module, preset, monkeypatch):
    # A machine without a GPU cannot run the GPU's kernels, but it can read the flags.
    monkeypatch.setattr(kernels, "_checked", lambda parser, arguments: arguments)
    runs = module.parse_arguments(["--preset", preset, "--repetitions", "2"])
    assert len(runs) == len(module.PRESETS[preset])
    assert {(run.preset, run.repetitions) for run in runs} == {(preset, 2)}
    shared = measuring.shared_conditions(runs)
    assert shared["preset"] == preset and "machine" in shared and len(shared) < len(measuring.conditions(runs[0]))


@pytest.mark.parametrize("product", products.PRODUCTS)
def test_a_repeated_product_runs_on_every_set_every_turn(product, monkeypatch):
    calls = []
    grid = BlockGrid((8, 8), (4, 4))
    operands = products.with_blocks(products.draw(grid, 2, "float32", seed=0), grid, 0.5, seed=0)

    def counted(x, weight, gy):
        jax.debug.callback(lambda: calls.append(product))
        return products.product_of("xla", product)(x, weight, gy)

    timed = products.compiled(counted, operands, calls=11)
    jax.block_until_ready(timed.run())
    jax.effects_barrier()
    assert len(calls) == timed.calls == 16  # two turns over eight sets
    # x [2, 8], gy [2, 8] and two blocks of 4 x 4, all float32.
    assert operands.bytes_moved(product) == (3 if product == "both" else 1) * 4 * (16 + 16 + 32)


@pytest.mark.slow
def test_memory(monkeypatch, tmp_path, tiny_size):
    run(memory, monkeypatch, "--size", "60m", "--density", 0.5, "--block", 8, "--json", tmp_path / "rows.json")
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert 0.5 < row["over_twin"] < 0.6 and row["whole_over_twin"] < 1


@pytest.mark.slow
def test_growth_memory(monkeypatch, tmp_path, tiny_size):
    run(growth_memory, monkeypatch, "--size", "60m", "--block", 8, "--json", tmp_path / "rows.json")
    random, gradient, momentum = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert random["score"] == 0 < gradient["score"] and gradient["state"] == random["state"]
    # 7 kinds in 2 layers, 4 x 4 places and 4 x 8 in the MLP of 64: one float each.
    assert momentum["state"] - gradient["state"] == 4 * 2 * (4 * 16 + 3 * 32)


@pytest.mark.slow
def test_rewiring(monkeypatch, tmp_path, tiny_size):
    shape = ["--size", "60m", "--block", 8, "--rows", 1, "--length", 8, "--repetitions", 1]
    run(rewiring, monkeypatch, *shape, "--json", tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["grow"] for row in rows] == ["random", "gradient"]
    # 7 kinds in 2 layers, 4 x 4 places and 4 x 8 in the MLP of 64.
    assert all(row["places"] == 2 * (4 * 16 + 3 * 32) and row["rewire_ms"] > 0 for row in rows)


@pytest.mark.slow
def test_step(monkeypatch, tmp_path, tiny_size):
    flags = ("--rows", 1, "--length", 8, "--block", 8, "--balance", "none", "--repetitions", 1, "--density", 0.5)
    run(step, monkeypatch, *flags, "--json", tmp_path / "rows.json")
    twin, sparse = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert (twin["density"], twin["over_twin"]) == (1.0, 1.0) and sparse["density"] == 0.5
    assert sparse["state_bytes"] < twin["state_bytes"] and sparse["tokens"] == 8


@pytest.mark.slow
def test_decode(monkeypatch, tmp_path, tiny_size):
    shared = ("--block", 8, "--density", 0.5, "--repetitions", 1, "--json", tmp_path / "rows.json")
    run(decode, monkeypatch, "--width", 32, "--linears", 2, "--tokens", 1, 3, "--implementation", "batched", *shared)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["tokens"], row["density"], row["implementations"]) for row in rows] == [
        (1, 1.0, "dense"),
        (1, 0.5, "batched"),
        (3, 1.0, "dense"),
        (3, 0.5, "batched"),
    ]
    # Two linears: 2 x 4 KiB dense, half of that and the indices sparse.
    assert rows[0]["weight_bytes"] == 8192 and 4096 < rows[1]["weight_bytes"] < 6000
    run(decode, monkeypatch, "--model", "60m", "--context", 8, *shared)
    dense, sparse = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert (dense["what"], dense["over_dense"], sparse["density"]) == ("60m", 1.0, 0.5)


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        (decode, ["--density", "1"]),
        (decode, ["--block", "48"]),
        (decode, ["--model", "60m", "--context", "1"]),
        (kernels, ["--block", "7", "7"]),
        (kernels, ["--density", "0"]),
        (kernels, ["--layer", "1b/mlp"]),
        (kernels, ["--implementation", "pallas_gpu"]),
        (kernels, ["--calls", "0"]),
        (memory, ["--density", "2"]),
        (memory, ["--size", "61m"]),
        (growth_memory, ["--density", "1"]),
        (rewiring, ["--density", "1"]),
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


@pytest.mark.parametrize(("module", "name"), [(decode, "--model"), (step, "--size")])
def test_a_block_that_does_not_fit_a_size_is_one_line(monkeypatch, module, name):
    monkeypatch.setattr(sys, "argv", ["benchmark", name, "60m", "--block", "48"])
    with pytest.raises(SystemExit, match=r"^benchmarks\.\w+: --block=48: must divide 512, the hidden width of 60m$"):
        module.main()
