"""The table of fit checks: a worked example of its lines, and flags that the command and its meshes accept."""

import pytest

from benchmarks.fit_checks import COST_COLUMNS, DENSITY_COLUMNS, SLICES, Cost, cost_cells, density_cells, flags_of
from sparsejax.cli.config_flag import load_run
from sparsejax.hardware.systems import parse_system
from sparsejax.training.mesh import settle_mesh

FIGURES = {
    "hardware": "v5e:4x4",
    "run": {
        "size": "1b",
        "density": 0.25,
        "mesh": {"replica": 1, "fsdp": 8, "tensor": 2, "sequence": False},
        "tokens_per_step": 2_000_000,
        "state_bytes": {
            "values": 2**20,
            "indices": 2**18,
            "ages": 2**18,
            "moments": 2**21,
            "other parameters": 2**20,
            "their moments": 2**21,
            "counters": 0,
        },
        "program_bytes": {"train step": {"total": 2**30}, "rewire step": {"total": 2**29}},
        "traffic": [
            {"kind": "all-gather", "axes": ["fsdp"], "sent": 2**20},
            {"kind": "reduce-scatter", "axes": ["fsdp"], "sent": 2**21},
            {"kind": "all-reduce", "axes": ["tensor"], "sent": 2**22},
        ],
        "seconds": {"compute": 0.01, "interconnect": 0.02, "floor": 0.02, "expected": 0.04},
        "bound": "interconnect",
    },
}


def test_what_a_check_says_and_costs():
    cells = dict(zip(COST_COLUMNS, cost_cells(FIGURES, Cost(61.4, 50.2, 3 * 10**9)), strict=True))
    assert cells["mesh"] == "1x8x2" and cells["state"] == "6" and cells["train step"] == "1,024"
    assert cells["rewire step"] == "512" and cells["floor ms"] == "20" and cells["expected ktokens/s"] == "50,000"
    assert (cells["seconds"], cells["processor s"], cells["host GB"]) == ("61", "50", "3.0")


def test_what_a_device_stores_and_sends():
    cells = dict(zip(DENSITY_COLUMNS, density_cells(FIGURES), strict=True))
    assert cells["indices + ages"] == "0.50" and cells["dense part"] == "3.0"
    assert (cells["fsdp gather"], cells["fsdp scatter"], cells["tensor"]) == ("1", "2", "4")
    assert cells["embedding and head"] == "0" and cells["links ms"] == "20.0"


@pytest.mark.parametrize("size", ["130m", "7b"])
@pytest.mark.parametrize("hardware", SLICES)
def test_the_meshes_are_legal(size, hardware):
    config, _, mesh, *overrides = flags_of(size, hardware, 0.25, 2048)
    replica, fsdp, tensor = mesh.removeprefix("--mesh=").split("x")
    sizes = {"replica": replica, "fsdp": fsdp, "tensor": tensor}
    run = load_run(
        config.removeprefix("--config="), [*overrides, *(f"--config.mesh.{k}={v}" for k, v in sizes.items())]
    )
    assert settle_mesh(run, parse_system(hardware).devices).mesh == run.mesh
