"""What every benchmark does: time programs in turn, state the conditions, write the rows down."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Times:
    """Wall-clock seconds of one program, and processor seconds of the whole process during it."""

    wall: list[float]
    processor: list[float]

    @property
    def median(self) -> float:
        """Median of the wall-clock seconds."""
        return statistics.median(self.wall)

    @property
    def spread(self) -> float:
        """(75th - 25th percentile) / median of the wall-clock seconds."""
        low, high = np.percentile(self.wall, [25, 75])
        return float(high - low) / self.median

    def over(self, calls: int) -> Times:
        """The same of one call, where every run of the program made ``calls`` of them."""
        return Times([seconds / calls for seconds in self.wall], [seconds / calls for seconds in self.processor])


def interleaved(programs: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, Times]:
    """Run each program once to warm up, then ``repetitions`` times in turn: a change of load meets them all."""
    times = {name: Times([], []) for name in programs}
    for program in programs.values():
        jax.block_until_ready(program())
    for _ in range(repetitions):
        for name, program in programs.items():
            wall, processor = time.perf_counter(), time.process_time()
            jax.block_until_ready(program())
            times[name].wall.append(time.perf_counter() - wall)
            times[name].processor.append(time.process_time() - processor)
    return times


def conditions(arguments: argparse.Namespace) -> dict[str, Any]:
    """The flags, the versions and the machine: what must stand beside a figure."""
    return vars(arguments) | {
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
    }


def shared_conditions(runs: Sequence[argparse.Namespace]) -> dict[str, Any]:
    """The conditions that all runs of one table have in common: what is printed above it."""
    every = [conditions(run) for run in runs]
    return {name: value for name, value in every[0].items() if all(run[name] == value for run in every)}


def write_json(path: str, conditions: Mapping[str, Any], rows: Sequence[Any]) -> None:
    """Write conditions and rows (dataclasses) to ``path``; nothing if it is empty."""
    if path:
        document = {"conditions": conditions, "rows": [dataclasses.asdict(row) for row in rows]}
        Path(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def report(
    runs: Sequence[argparse.Namespace],
    columns: Sequence[str],
    measured: Iterable[Any],
    cells: Callable[[Any], Sequence[object]],
) -> None:
    """Print the shared conditions and a Markdown table, each line once it is measured; write the JSON file if asked to.

    Args:
      runs: the flags of all runs; the first names the file.
      columns: the heading.
      measured: rows (dataclasses) of all runs.
      cells: what the table shows of a row.
    """
    print(" ".join(f"{name}={value}" for name, value in shared_conditions(runs).items()))
    print(table_line(columns))
    print(table_line(["---"] * len(columns)))
    rows = []
    for row in measured:
        rows.append(row)
        print(table_line(cells(row)), flush=True)
    write_json(runs[0].json, {"runs": [conditions(arguments) for arguments in runs]}, rows)


def table_line(cells: Sequence[object]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
