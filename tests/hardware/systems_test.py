"""Names of machines: what they mean, and one line with examples for what means nothing."""

import pytest

from sparsejax.hardware.interconnect import Place
from sparsejax.hardware.systems import parse_system
from sparsejax.hardware.target import Target


@pytest.mark.parametrize(
    ("name", "devices", "platform"),
    [
        ("v5e:16x16", 256, "tpu"),
        ("v5e:1x1", 1, "tpu"),
        ("v4:2x2x4", 16, "tpu"),
        ("v5p:8x8x16", 1024, "tpu"),
        ("tpu7x:2x2x4", 32, "tpu"),  # two devices a chip
        ("2xv5e:16x16", 512, "tpu"),
        ("h200:64", 64, "gpu"),
        ("a100-80gb:8", 8, "gpu"),
        ("cpu:8", 8, "cpu"),
    ],
)
def test_names(name, devices, platform):
    system = parse_system(name)
    assert (system.name, system.devices) == (name, devices)
    assert system.target == Target(platform, system.chip.name if system.chip else None)


def test_slices_have_a_torus_each():
    system = parse_system("2xv5p:4x4x8")
    assert (system.slices, system.torus, system.slice_name) == (2, (4, 4, 8), "v5p:4x4x8")
    assert parse_system("h100:16").torus == parse_system("cpu:4").torus == ()


def test_gpus_fill_nodes():
    places = parse_system("h100:16").gpu_places()
    assert places[0] == Place(0, (), 0) and places[9] == Place(1, (), 1) and len(places) == 16


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("v5litepod-4", "not <chip>:<shape>"),
        ("v5e", "not <chip>:<shape>"),
        ("v5e:0x4", "not <chip>:<shape>"),
        ("trillium:4x4", "trillium is none of cpu, v4, v5e"),
        ("v5p:4x4", "v5p has 3 dimensions"),
        ("v5e:4x4x4", "v5e has 2 dimensions"),
        ("h100:2x4", "write the number: h100:8"),
        ("2xh100:8", "write the number"),
        ("cpu:4x4", "simulates 1 to 64"),
        ("cpu:4096", "simulates 1 to 64"),
    ],
)
def test_what_means_nothing_is_one_line_with_examples(name, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        parse_system(name)
    assert str(caught.value).startswith(f"{name}: ") and "v5p:4x4x4" in str(caught.value)
    assert "\n" not in str(caught.value)
