"""Waiting for the TPU compiler; what it compiles is tested with the kernels."""

import jax
import pytest

from sparsejax.hardware import topologies
from sparsejax.hardware.chips import Chip, chip_named


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
