"""Names of slices in sparsejax, in the TPU API and in GKE."""

import pytest

from launch.exit_codes import LaunchError
from launch.slices import GENERATIONS, parse_slice


@pytest.mark.parametrize(
    ("hardware", "accelerator_type", "chips", "many_hosts", "pods"),
    [
        ("v4:2x2x1", "v4-8", 4, False, 1),
        ("v5p:2x2x2", "v5p-16", 8, True, 2),
        ("v5p:8x8x16", "v5p-2048", 1024, True, 256),
        ("v5e:1x1", "v5litepod-1", 1, False, 1),
        ("v5e:2x4", "v5litepod-8", 8, False, 2),
        ("v5e:16x16", "v5litepod-256", 256, True, 64),
        ("v6e:4x4", "v6e-16", 16, True, 4),
        ("tpu7x:2x2x4", "tpu7x-32", 16, True, 4),
    ],
)
def test_names(hardware: str, accelerator_type: str, chips: int, many_hosts: bool, pods: int) -> None:
    found = parse_slice(hardware)
    assert (found.hardware, found.accelerator_type, found.chips) == (hardware, accelerator_type, chips)
    assert (found.many_hosts, found.pods) == (many_hosts, pods)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_an_accelerator_type_has_one_shape(generation: str) -> None:
    """It is only a number of chips, so two shapes of one number could not both be asked for."""
    names = [parse_slice(f"{generation}:{shape}").accelerator_type for shape in GENERATIONS[generation].shapes]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v7:2x2", "--hardware=v7:2x2: no such TPU; write one of v4, v5e, v5p, v6e, tpu7x and a shape: v5p:4x4x4"),
        ("v5p", "--hardware=v5p: no accelerator type has this shape; v5p comes as 2x2x1, 2x2x2,"),
        ("v5e:4x5", "--hardware=v5e:4x5: no accelerator type has this shape; v5e comes as 1x1, 2x2,"),
        ("h100:8", "--hardware=h100:8: no such TPU"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(LaunchError) as caught:
        parse_slice(text)
    assert str(caught.value).startswith(message)
