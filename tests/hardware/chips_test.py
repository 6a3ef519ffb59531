"""The table of chips against itself, against JAX's own table, and against how peaks are wrongly quoted."""

import pytest
from jax.experimental.pallas import tpu as pltpu

from sparsejax.hardware.chips import CHIPS, Chip, chip_for


def test_a_device_kind_finds_its_chip() -> None:
    v5e, h200 = chip_for("TPU v5 lite"), chip_for("NVIDIA H200")
    assert v5e is not None and (v5e.name, v5e.peak_flops) == ("v5e", 197e12)
    assert h200 is not None and (h200.name, h200.memory_bandwidth) == ("h200", 4.8e12)


@pytest.mark.parametrize("kind", ["cpu", "", "TPU v2", "tpu v4", "NVIDIA GeForce RTX 4090"])
def test_an_unlisted_device_has_no_peak(kind: str) -> None:
    assert chip_for(kind) is None


def test_names_and_device_kinds_are_unique() -> None:
    names = [chip.name for chip in CHIPS]
    kinds = [kind for chip in CHIPS for kind in chip.device_kinds]
    assert len(names) == len(set(names))
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_units_are_the_ones_documented(chip: Chip) -> None:
    """A figure in TFLOP/s, GB or GB/s instead of FLOP/s, bytes or bytes/s falls outside these ranges."""
    assert 1e14 < chip.peak_flops < 3e15
    assert 16e9 < chip.memory_bytes < 2e11
    assert 8e11 < chip.memory_bandwidth < 1e13
    assert 160 * 2**10 <= chip.kernel_memory_bytes <= 128 * 2**20
    # Dense peaks over bandwidth: every listed chip needs 150 to 650 FLOP per byte; a sparse peak would leave the range.
    assert 150 < chip.peak_flops / chip.memory_bandwidth < 650
    assert chip.source


@pytest.mark.parametrize(
    ("name", "version", "cores"),
    [
        ("v4", pltpu.ChipVersion.TPU_V4, 2),
        ("v5e", pltpu.ChipVersion.TPU_V5E, 1),
        ("v5p", pltpu.ChipVersion.TPU_V5P, 2),
        ("v6e", pltpu.ChipVersion.TPU_V6E, 1),
        ("tpu7x", pltpu.ChipVersion.TPU_7X, 1),
    ],
)
def test_tpus_agree_with_jax(name: str, version: pltpu.ChipVersion, cores: int) -> None:
    """JAX lists figures per TensorCore; a device is `cores` of them. Its bandwidth of v5p is lower than Google's."""
    chip = next(chip for chip in CHIPS if chip.name == name)
    info = pltpu.get_tpu_info_for_chip(version, cores)
    assert chip.kernel_memory_bytes == info.vmem_capacity_bytes
    assert chip.peak_flops == pytest.approx(cores * info.bf16_ops_per_second, rel=0.01)
    assert chip.memory_bytes == pytest.approx(cores * info.hbm_capacity_bytes, rel=0.01)
    assert chip.memory_bandwidth == pytest.approx(cores * info.mem_bw_bytes_per_second, rel=0.13)
