"""Waiting for the TPU compiler; what it compiles is tested with the kernels."""

import jax
import pytest

from sparsejax.hardware import topologies
from sparsejax.hardware.chips import Chip, chip_named
from sparsejax.hardware.systems import parse_system


class Description:
    devices = ("a device",)


def test_waits_for_the_lock_of_another_process(monkeypatch):
    answers = [jax.errors.JaxRuntimeError("ABORTED: multi-process lockfile"), Description]

    def describe(platform: str, topology_name: str) -> Description:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer()

    monkeypatch.setattr(topologies, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(topologies.topologies, "get_topology_desc", describe)
    assert topologies.described_device.__wrapped__(chip_named("v5e")) == "a device"
    assert answers == []


def test_gives_up_in_one_line(monkeypatch):
    def describe(platform: str, topology_name: str) -> Description:
        raise jax.errors.JaxRuntimeError("ABORTED: multi-process lockfile")

    monkeypatch.setattr(topologies, "_ATTEMPTS", 2)
    monkeypatch.setattr(topologies, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(topologies.topologies, "get_topology_desc", describe)
    with pytest.raises(RuntimeError, match="in use by another process"):
        topologies.described_device.__wrapped__(chip_named("v5e"))


@pytest.mark.parametrize("name", ["h200", "b200"])
def test_a_gpu_is_no_tpu(name):
    chip: Chip = chip_named(name)
    with pytest.raises(ValueError, match=f"chip={name}: no TPU; use one of v4, v5e"):
        topologies.described_device(chip)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("v5e:4x4", {}),
        ("2xv5e:4x4", {"num_slices": 2}),
        ("v4:2x2x1", {"chip_config_name": "megacore"}),
        ("v5p:1x1x1", {"chips_per_host_bounds": (1, 1, 1)}),
    ],
)
def test_whole_systems_are_described_by_slice(monkeypatch, name, options):
    asked = []

    def describe(**keywords) -> type[Description]:
        asked.append(keywords)
        return Description

    monkeypatch.setattr(topologies.topologies, "get_topology_desc", describe)
    system = parse_system(name)
    assert topologies.described_devices.__wrapped__(system) == Description.devices
    assert asked == [{"platform": "tpu", "topology_name": system.slice_name, **options}]


def test_a_shape_that_the_compiler_refuses_is_one_line(monkeypatch):
    def describe(platform: str, topology_name: str) -> Description:
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: not divisible\nby the default bounds")

    monkeypatch.setattr(topologies.topologies, "get_topology_desc", describe)
    with pytest.raises(ValueError, match="v5e:3x3: INVALID_ARGUMENT: not divisible; legal are for example") as caught:
        topologies.described_devices.__wrapped__(parse_system("v5e:3x3"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="h100:8: no TPU"):
        topologies.described_devices.__wrapped__(parse_system("h100:8"))
