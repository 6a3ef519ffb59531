"""What ``benchmarks.gpu_compile`` reads, on reports written down here: compiling needs a CUDA plugin."""

import importlib.util
import sys

import jax
import pytest

from benchmarks import gpu_compile
from sparsejax.hardware.chips import chip_named

REPORT = """ptxas info    : Compiling entry function 'block_rows_mosaic_gpu_kernel' for 'sm_90a'
    0 bytes stack frame, {stores} bytes spill stores, 8 bytes spill loads
ptxas info    : Used 168 registers, used 16 barriers, 1 bytes smem
"""
PTX = "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {};\n" * 2 + "wgmma.wait_group.sync.aligned 0;\n"


def write(folder, stem, report):
    (folder / f"{stem}.ptxas").write_text(report)
    (folder / f"{stem}.ptx").write_text(PTX)


def test_a_report_becomes_a_row(tmp_path):
    write(tmp_path, "block_rows_7", REPORT.format(stores=16))
    rows = gpu_compile.read_reports(tmp_path, (64, 128), "float16")
    assert rows == [gpu_compile.Row("block_rows", (64, 128), "float16", 168, 24, 2)]


def test_a_report_without_figures_is_an_error(tmp_path):
    write(tmp_path, "block_rows_7", "ptxas fatal")
    with pytest.raises(ValueError, match=r"block_rows_7.ptxas: no report"):
        gpu_compile.read_reports(tmp_path, (64, 128), "float16")


@pytest.mark.parametrize(("spilled", "kernels", "code"), [(0, 32, 0), (8, 32, 1), (0, 31, 1)])
def test_spills_and_missing_kernels_fail(monkeypatch, capsys, spilled, kernels, code):
    row = gpu_compile.Row("block_rows", (64, 64), "bfloat16", 168, spilled, 8)
    monkeypatch.setattr(gpu_compile, "compiled_rows", lambda chip, blocks, dtypes: [row] * kernels)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    monkeypatch.setattr(gpu_compile.os, "environ", {})
    monkeypatch.setattr(sys, "argv", ["gpu_compile"])
    assert gpu_compile.main() == code
    assert "| block_rows | 64x64 | bfloat16 | 168 |" in capsys.readouterr().out


def test_without_the_plugin_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["gpu_compile"])
    assert gpu_compile.main() == 2
    assert "pip install 'sparsejax[cuda]'" in capsys.readouterr().err


def test_the_described_device_has_the_figures_of_the_chip(monkeypatch):
    asked = {}

    def topology(**arguments):
        asked.update(arguments)
        return type("Topology", (), {"devices": ["a device"]})

    monkeypatch.setattr(gpu_compile.topologies, "get_topology_desc", topology)
    assert gpu_compile.described_gpu(chip_named("h200")) == "a device"
    assert asked["platform"] == "cuda"
    for line in ("NVIDIA H200", "memory_bandwidth: 4800000000000", "optin: 232448", "{ major: 9 }"):
        assert line in asked["target_config"]
