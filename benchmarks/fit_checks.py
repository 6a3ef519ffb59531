"""``sparsejax check`` of large models on TPU slices, each in a process of its own: what it says, and what it costs.

    python -m benchmarks.fit_checks

compiles for TPUs that are not here (the ``tpu`` extra), one after the other, and prints a Markdown table: bytes of one
device, the floor and the expectation of a step, and the seconds and the memory that the check itself took.
``--densities 1 0.5 0.25 0.125 --sizes 1b --slices v5p:4x4x4`` prints what a device stores and sends against density.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import table_line

MIB = 2**20
_RUN = "import sys; from sparsejax.cli.main import main; sys.exit(main(sys.argv[1:]))"


@dataclasses.dataclass(frozen=True)
class Slice:
    """A TPU slice, its mesh for models whose heads and widths four devices can share, and one without sharing.

    Attributes:
      cut: replica x fsdp x tensor.
      whole: the same without a tensor axis.
      rows: of the global batch.
      block: the width of the matrix unit.
    """

    cut: str
    whole: str
    rows: int
    block: int


SLICES = {
    "v5e:16x16": Slice("1x64x4", "4x64x1", 256, 128),
    "v5p:8x8x16": Slice("16x16x4", "16x64x1", 1024, 128),
    "v6e:16x16": Slice("1x64x4", "4x64x1", 256, 256),
    "tpu7x:2x2x4": Slice("1x8x4", "1x32x1", 64, 256),
    "v5p:4x4x4": Slice("1x16x4", "1x64x1", 64, 128),
}
# The hidden width of 130m holds six blocks of 128: four devices cannot share them.
WHOLE = ("130m",)

COST_COLUMNS = (
    *("size", "hardware", "mesh", "density", "state", "train step", "rewire step"),
    *("floor ms", "bound by", "expected ktokens/s", "seconds", "processor s", "host GB"),
)
DENSITY_COLUMNS = (
    *("density", "values", "indices + ages", "moments", "dense part", "train step", "fsdp gather", "fsdp scatter"),
    *("embedding and head", "tensor", "compute ms", "links ms"),
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one check took: wall-clock seconds, processor seconds, bytes of host memory."""

    seconds: float
    processor: float
    memory: int


def flags_of(size: str, hardware: str, density: float, length: int) -> list[str]:
    """What to check: everything recomputed, rows of ``length`` tokens."""
    machine = SLICES[hardware]
    whole = size in WHOLE
    shards = 1 if whole else 4
    return [
        f"--config=configs/llama.py:size={size},density={density:g},block={machine.block},shards={shards}",
        f"--hardware={hardware}",
        f"--mesh={machine.whole if whole else machine.cut}",
        "--config.model.remat=full",
        f"--config.data.sequence_length={length}",
        f"--config.train.batch_size={machine.rows}",
    ]


def check(flags: list[str]) -> tuple[dict[str, Any], Cost]:
    """The figures of a check and what it cost; raises ``RuntimeError`` with its last words if it found no answer."""
    with tempfile.TemporaryDirectory() as directory:
        path, log = Path(directory, "check.json"), Path(directory, "log")
        start = time.monotonic()
        with log.open("wb") as output:
            command = [sys.executable, "-c", _RUN, "check", *flags, f"--json={path}"]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        if not path.exists():
            raise RuntimeError(f"{' '.join(flags)}: exit {os.waitstatus_to_exitcode(status)}\n{log.read_text()[-500:]}")
        figures = json.loads(path.read_text())
    return figures, Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def cost_cells(figures: dict[str, Any], cost: Cost) -> list[str]:
    """One line of the table of checks; bytes in MiB of one device."""
    run = figures["run"]
    programs = {name: f"{each['total'] / MIB:,.0f}" for name, each in run["program_bytes"].items()}
    mesh = run["mesh"]
    return [
        run["size"],
        figures["hardware"],
        f"{mesh['replica']}x{mesh['fsdp']}x{mesh['tensor']}",
        f"{run['density']:g}",
        f"{sum(run['state_bytes'].values()) / MIB:,.0f}",
        programs["train step"],
        programs["rewire step"] if "rewire step" in programs else "-",
        f"{1e3 * run['seconds']['floor']:.0f}",
        run["bound"],
        f"{run['tokens_per_step'] / run['seconds']['expected'] / 1e3:,.0f}",
        f"{cost.seconds:.0f}",
        f"{cost.processor:.0f}",
        f"{cost.memory / 1e9:.1f}",
    ]


def density_cells(figures: dict[str, Any]) -> list[str]:
    """One line of the table against density: MiB held, MiB sent in a step, milliseconds."""
    run = figures["run"]
    state, seconds = run["state_bytes"], run["seconds"]

    def sent(axes: list[str], *kinds: str) -> str:
        found = (each["sent"] for each in run["traffic"] if each["axes"] == axes and each["kind"] in kinds)
        return f"{sum(found) / MIB:,.0f}"

    return [
        f"{run['density']:g}",
        f"{state['values'] / MIB:.1f}",
        f"{(state['indices'] + state['ages']) / MIB:.2f}",
        f"{state['moments'] / MIB:.1f}",
        f"{(state['other parameters'] + state['their moments']) / MIB:.1f}",
        f"{run['program_bytes']['train step']['total'] / MIB:,.0f}",
        sent(["fsdp"], "all-gather"),
        sent(["fsdp"], "reduce-scatter", "all-reduce"),
        sent(["fsdp", "tensor"], "all-gather", "reduce-scatter", "all-reduce"),
        sent(["tensor"], "all-gather", "reduce-scatter", "all-reduce"),
        f"{1e3 * seconds['compute']:.1f}",
        f"{1e3 * seconds['interconnect']:.1f}",
    ]


def main() -> None:
    """Print one table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["130m", "1b", "3b84", "7b"])
    parser.add_argument("--slices", nargs="+", choices=tuple(SLICES), default=list(SLICES)[:4])
    parser.add_argument("--densities", nargs="+", type=float, default=[0.25])
    parser.add_argument("--length", type=int, default=2048, help="tokens of a row")
    arguments = parser.parse_args()
    against_density = len(arguments.densities) > 1
    columns = DENSITY_COLUMNS if against_density else COST_COLUMNS
    print(table_line(columns), table_line(["---"] * len(columns)), sep="\n")
    for size in arguments.sizes:
        for hardware in arguments.slices:
            for density in arguments.densities:
                figures, cost = check([*flags_of(size, hardware, density, arguments.length), "--twin=none"])
                cells = density_cells(figures) if against_density else cost_cells(figures, cost)
                print(table_line(cells), flush=True)


if __name__ == "__main__":
    main()
