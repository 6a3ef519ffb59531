"""A target is read off a device, never off the host."""

import dataclasses

import jax
import pytest

from sparsejax.hardware.chips import chip_named
from sparsejax.hardware.target import CPU, target_of


@dataclasses.dataclass(frozen=True)
class Device:
    platform: str
    device_kind: str


@pytest.mark.parametrize(
    ("platform", "kind", "chip"),
    [("tpu", "TPU v5 lite", "v5e"), ("gpu", "NVIDIA H200", "h200"), ("gpu", "NVIDIA T4", None)],
)
def test_platform_and_chip_of_a_device(platform, kind, chip):
    target = target_of(Device(platform, kind))
    assert (target.platform, target.chip) == (platform, chip)


def test_a_cpu_has_no_chip():
    assert target_of(jax.devices("cpu")[0]) == CPU


def test_a_chip_by_name_or_a_line_with_the_names():
    assert chip_named("v6e").device_kinds == ("TPU v6 lite", "TPU v6e")
    with pytest.raises(ValueError, match=r"chip='h300': unknown; use one of v4, .*, b200$"):
        chip_named("h300")
