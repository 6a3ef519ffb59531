"""``sparsejax check`` as a user calls it: GPUs by arithmetic, a CPU and a TPU by compiling; exit codes 0, 2 and 3."""

import json

import jax
import pytest

from sparsejax.cli.main import main
from tests.cli.commands_test import TINY

SMALL = ["check", "--config=configs/llama.py:size=60m,density=0.25,block=32"]
LARGE = ["check", "--config=configs/llama.py:size=7b,density=0.25,block=128,shards=4", "--config.train.batch_size=64"]

# Nothing of the data is opened.
ABSENT = ["--config.data.path=/nowhere/text.txt", "--config.data.validation_path=/nowhere/validation.txt"]


def test_a_gpu_is_checked_by_arithmetic(capsys, tmp_path):
    assert main([*SMALL, "--hardware=h100:8", f"--json={tmp_path / 'check.json'}"]) == 0
    recorded = json.loads((tmp_path / "check.json").read_text())
    assert recorded["fits"] and recorded["devices"] == 8 and recorded["run"]["tokens_per_step"] == 64 * 256
    values, dense = (recorded[one]["state_bytes"]["values"] for one in ("run", "twin"))
    assert values == pytest.approx(dense / 4, rel=0.02)  # eight devices share out slots, the last ones free
    assert not recorded["run"]["compiled"] and recorded["run"]["seconds"]["floor"] > 0
    printed = capsys.readouterr().out
    for part in (
        "60m, density 0.25, smet on h100:8: 8 devices, mesh 1 x 8 x 1",
        "by formula",
        "nothing was compiled",
        "activations kept for the backward pass (by arithmetic)",
        "tokens/s expected",
        "hours at the floor, 10,000 steps",
        "dense twin",
        "fits: the train step needs about",
    ):
        assert part in printed, part


def test_too_large_a_model_exits_with_3_and_a_remedy(capsys):
    assert main([*LARGE, "--hardware=h100:8", "--twin=none", "--config.data.sequence_length=2048"]) == 3
    printed = capsys.readouterr().out
    assert (
        "does not fit: the train step needs about" in printed and "Largest, by arithmetic: activations kept" in printed
    )
    assert "would fit with --config.model.remat=full: " in printed and "by arithmetic" in printed
    assert "dense twin" not in printed


def test_what_no_remedy_helps(capsys):
    dense = "--config=configs/llama.py:size=7b,density=1"
    assert main(["check", dense, "--hardware=h100:1", "--twin=none", "--config.train.batch_size=1"]) == 3
    assert "no remedy was found" in capsys.readouterr().out


def test_a_search_proposes_a_mesh(capsys):
    flags = ["--hardware=h100:4", "--search", "--twin=none", "--config.model.remat=full"]
    assert main([*SMALL, *flags]) == 0
    printed = capsys.readouterr().out
    proposed = printed.partition("proposed: --mesh=")[2].split()[0]
    assert f"mesh {proposed}: " in printed and "ms a step expected" in printed
    assert main([*SMALL, *flags[:1], f"--mesh={proposed}", *flags[2:]]) == 0


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--hardware=v5litepod-4"], ["--hardware=v5litepod-4: not <chip>:<shape>", "v5p:4x4x4"]),
        (["--hardware=v5p:4x4"], ["v5p has 3 dimensions"]),
        (["--hardware=cpu:9"], ["JAX simulates 8 devices here"]),
        (["--hardware=h100:8", "--mesh=8"], ["--mesh=8: must be <replica>x<fsdp>x<tensor>"]),
        (["--hardware=h100:8", "--mesh=1x16x1"], ["mesh.fsdp=16", "there are 8"]),
        (["--hardware=h100:8", "--mesh=1x4x2"], ["mesh.tensor=2", "topology.shards=1"]),
        (["--hardware=h100:8", "--mesh=1x8x1", "--search"], ["give one of them"]),
        (["--hardware=h100:7", "--search"], ["no mesh of its 7 devices"]),
        (["--hardware=h100:8", "--steps=-1"], ["--steps, --vocab_size: must be at least 0"]),
        (["--hardware=h100:8", "--config.train.steps=0", "--config.train.epochs=2"], ["give --steps"]),
        ([], ["--hardware"]),
    ],
)
def test_bad_input_is_one_line(capsys, flags, parts):
    assert main([*SMALL, *flags]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("sparsejax: ") and printed.count("\n") == 1
    for part in parts:
        assert part in printed, printed


@pytest.mark.slow
def test_a_cpu_is_checked_by_compiling(capsys):
    assert main(["check", *TINY, *ABSENT, "--hardware=cpu:4", "--mesh=2x2x1"]) == 0
    printed = capsys.readouterr().out
    assert "read off the compiled program" in printed and "total of the rewire step" in printed
    assert "no times" in printed and "of this machine's memory" in printed


@pytest.mark.tpu
def test_a_tpu_is_checked_by_its_own_compiler(capsys):
    sizes = {"hidden": 512, "mlp": 512, "heads": 4, "kv_heads": 4, "head_dim": 128, "layers": 1}
    wide = [f"--config.model.{name}={size}" for name, size in sizes.items()]
    flags = [
        "--config.topology.block=128,128",
        "--config.topology.shards=2",
        "--config.model.implementation=pallas_tpu",
    ]
    flags += ["--config.data.sequence_length=128", "--config.model.compute_dtype=bfloat16"]
    assert main(["check", *TINY, *ABSENT, *wide, *flags, "--hardware=v5e:2x2", "--mesh=1x2x2"]) == 0
    printed = capsys.readouterr().out
    assert "read off the compiled program" in printed and "total of the rewire step" in printed
    assert "all-gather" in printed and "of 16.00 GiB a device" in printed and jax.devices()[0].platform == "cpu"


@pytest.mark.slow
@pytest.mark.tpu
def test_a_tpu_compiler_says_what_does_not_fit(capsys):
    flags = ["--hardware=v5e:2x2", "--twin=none", "--config.train.batch_size=64", "--config.data.sequence_length=1024"]
    assert main(["check", "--config=configs/llama.py:size=1b,density=0.25,block=128", *flags]) == 3
    printed = capsys.readouterr().out
    assert "total of the train step, says its compiler" in printed
    assert "would fit with --config.model.remat=full: " in printed and "verified by compiling" in printed
