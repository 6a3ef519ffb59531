"""The tables of ``sparsejax check``: memory, traffic and time of a run beside its dense twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

from sparsejax.hardware.systems import System
from sparsejax.planning import floor
from sparsejax.planning.compiling import TRAIN
from sparsejax.planning.fit import GPU_MEMORY_SHARE, Fit, size_of
from sparsejax.planning.footprint import ProgramBytes
from sparsejax.planning.overflow import Overflow
from sparsejax.topology.density_path import decays
from sparsejax.training.spent import score_passes

_MIB, _GIB = 2**20, 2**30


def heading(fit: Fit, system: System) -> str:
    """What was checked, in one line."""
    run, work = fit.recipe.run, fit.work
    mesh = f"{work.replica} x {work.fsdp} x {work.tensor} (replica x fsdp x tensor)"
    sequence = ", activations cut along tokens" if run.mesh.sequence else ""
    density = f"{run.topology.density:g}"
    if decays(run.topology):
        density = f"{run.topology.density_start:g} falling to {density} ({fit.density:.3g} in the mean)"
    return (
        f"{run.model.size}, density {density}, {run.topology.method} on {system.name}: "
        f"{system.devices} devices, mesh {mesh}{sequence}; {work.tokens:,} tokens a step in {work.microbatches} "
        f"microbatches of {work.micro_tokens:,} for each of {work.replica * work.fsdp} groups, remat {work.remat}"
    )


def memory_table(fit: Fit, twin: Fit | None) -> Table:
    """Bytes of one device by kind, the dense twin's beside them."""
    table = _table("memory of one device (MiB)")
    columns = ("this run", "dense twin", "ratio") if twin else ("this run",)
    _columns(table, "", *columns)
    mine, theirs = _memory_rows(fit), _memory_rows(twin) if twin else {}
    # Arithmetic beside a compiler's figures would compare two ways of counting.
    for name in mine if twin is None or fit.compiled != twin.compiled else dict.fromkeys([*mine, *theirs]):
        table.add_row(name, *_compared(mine.get(name), theirs.get(name), _MIB)[: len(columns)])
    return table


def _memory_rows(fit: Fit) -> dict[str, float]:
    rows: dict[str, float] = {kind: nbytes for kind, nbytes in fit.state.items() if nbytes and kind != "counters"}
    train = fit.programs[TRAIN] if TRAIN in fit.programs else None
    if isinstance(train, ProgramBytes):
        rows["batch, counters, padding of layouts"] = train.arguments - sum(rows.values())
        rows["activations, gradients, other temporaries"] = train.temporaries
        rows["outputs beside the state"] = train.outputs
        rows["code"] = train.code
    else:
        rows |= {f"{name} (by arithmetic)": nbytes for name, nbytes in fit.estimate.items()}
    for name, each in fit.programs.items():
        said = ", says its compiler" if isinstance(each, Overflow) else ""
        rows[f"total of the {name}{said}"] = size_of(each)
    if not fit.programs:
        rows["total of the train step, estimated"] = fit.estimated
    return rows


def traffic_table(fit: Fit, twin: Fit | None, system: System) -> Table:
    """Collectives of one train step, as one device sees them."""
    source = "read off the compiled program" if fit.compiled else "by formula"
    table = _table(f"traffic of one train step and device, {source}")
    _columns(table, "collective", "over", "group", "count", "payload MiB", "sent MiB", "GB/s", "ms", "twin's sent MiB")
    # Where the density falls, times are means and bytes those of the first step.
    links = {} if fit.times is None or decays(fit.recipe.run.topology) else fit.times.links
    dense = {(each.kind, each.axes): each for each in twin.traffic} if twin else {}
    for each in fit.traffic:
        total = sum(other.sent for other in fit.traffic if other.axes == each.axes)
        seconds = links[each.axes] * each.sent / total if each.axes in links and total else None
        other = dense[each.kind, each.axes] if (each.kind, each.axes) in dense else None
        table.add_row(
            each.kind,
            ", ".join(each.axes),
            f"{each.group}",
            f"{each.count:,}",
            f"{each.payload / _MIB:.2f}",
            f"{each.sent / _MIB:.2f}",
            "-" if not seconds else f"{each.sent / seconds / 1e9:.0f}",
            "-" if seconds is None else f"{1e3 * seconds:.3f}",
            "-" if other is None else f"{other.sent / _MIB:.2f}",
        )
    return table


def time_table(fit: Fit, twin: Fit | None) -> Table:
    """FLOPs, the three times, the floor and what to expect, the dense twin's beside them."""
    table = _table("one train step, arithmetic at the peaks of the data sheet; not a measurement")
    columns = ("this run", "dense twin", "ratio") if twin else ("this run",)
    _columns(table, "", *columns)
    mine, theirs = _time_rows(fit), _time_rows(twin) if twin else {}
    for name in mine:
        table.add_row(name, *_compared(mine[name], theirs.get(name), 1.0)[: len(columns)])
    return table


def _time_rows(fit: Fit) -> dict[str, float]:
    rows = {
        "executed TFLOP, all devices": fit.executed / 1e12,
        "theoretical sparse TFLOP, all devices": fit.theoretical / 1e12,
    }
    if fit.times is None:
        return rows
    times, hours = fit.times, fit.recipe.steps / 3600
    return rows | {
        "compute ms": 1e3 * times.compute,
        "memory ms": 1e3 * times.memory,
        "interconnect ms": 1e3 * times.interconnect,
        "floor ms (the largest)": 1e3 * times.floor,
        "expected ms": 1e3 * times.expected,
        "tokens/s at the floor": fit.work.tokens / times.floor,
        "tokens/s expected": fit.work.tokens / times.expected,
        f"hours at the floor, {fit.recipe.steps:,} steps": hours * times.floor,
        f"hours expected, {fit.recipe.steps:,} steps": hours * times.expected,
    }


def remarks(fit: Fit, twin: Fit | None, system: System) -> Iterator[str]:
    """What the tables do not say, one line each."""
    if fit.times is not None:
        yield f"bound by {fit.times.bound} at the floor. {floor.ASSUMPTIONS}"
    else:
        yield "a CPU has no peaks in the table of chips: no times"
    topology = fit.recipe.run.topology
    if decays(topology):
        yield "the density falls: bytes and traffic are those of the first step, FLOPs and times means over the run"
    if passes := score_passes(fit.recipe):
        yield f"FLOPs and times count {passes:,} passes that score places for growth or drops, spread over all steps"
    if twin is not None and fit.compiled and not twin.compiled:
        yield "the twin was not compiled: its state is exact, its traffic and times are formulas; see --twin=compiled"
    if system.target.platform == "gpu":
        yield (
            f"GPU without a GPU: nothing was compiled, bytes and traffic are arithmetic; {GPU_MEMORY_SHARE:.0%} of the "
            f"memory counts (set XLA_PYTHON_CLIENT_MEM_FRACTION={GPU_MEMORY_SHARE:g})"
        )


def verdict(fit: Fit) -> str:
    """Fits or not, in one line; what does not fit names its largest buffers."""
    needed = f"{fit.needed / _GIB:.2f} GiB"
    if fit.limit is None:
        return f"fits as far as anyone can say: {needed} a device, of this machine's memory"
    of = f"{needed} of {fit.limit / _GIB:.2f} GiB a device"
    how = f"the {fit.fullest} needs" if fit.programs else f"the {fit.fullest} needs about"
    if fit.fits:
        return f"fits: {how} {of}"
    held = [*fit.state.items(), *(fit.estimate.items() if fit.fullest == TRAIN else ())]
    largest = sorted(held, key=lambda item: -item[1])[:3]
    named = "; ".join(f"{name} {nbytes / _GIB:.2f} GiB" for name, nbytes in largest)
    return f"does not fit: {how} {of}. Largest, by arithmetic: {named}"


def record(fit: Fit, twin: Fit | None, system: System) -> dict[str, Any]:
    """Every figure of the tables, ready for JSON: bytes, FLOPs and seconds, of one device unless they say otherwise."""
    return {
        "hardware": system.name,
        "devices": system.devices,
        "fits": fit.fits,
        "limit_bytes": fit.limit,
        "run": _recorded(fit),
        "twin": None if twin is None else _recorded(twin),
    }


def _recorded(fit: Fit) -> dict[str, Any]:
    run, times = fit.recipe.run, fit.times
    return {
        "size": run.model.size,
        "density": run.topology.density,
        "mean_density": fit.density,
        "mesh": dataclasses.asdict(run.mesh),
        "steps": fit.recipe.steps,
        "tokens_per_step": fit.work.tokens,
        "compiled": fit.compiled,
        "needed_bytes": fit.needed,
        "state_bytes": dict(fit.state),
        "program_bytes": {
            name: dataclasses.asdict(each) | {"total": size_of(each)} for name, each in fit.programs.items()
        },
        "estimated_bytes": dict(fit.estimate),
        "traffic": [dataclasses.asdict(each) for each in fit.traffic],
        "executed_flops": fit.executed,
        "theoretical_flops": fit.theoretical,
        "seconds": None
        if times is None
        else {
            "compute": times.compute,
            "memory": times.memory,
            "interconnect": times.interconnect,
            "floor": times.floor,
            "expected": times.expected,
        },
        "bound": None if times is None else times.bound,
    }


def _compared(mine: float | None, theirs: float | None, unit: float) -> tuple[str, str, str]:
    shown = tuple("-" if value is None else _digits(value / unit) for value in (mine, theirs))
    ratio = f"{mine / theirs:.3f}" if mine is not None and theirs else "-"
    return shown[0], shown[1], ratio


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 10_000 else f"{value:,.3f}"


def _columns(table: Table, first: str, *others: str) -> None:
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="left" if name == "over" else "right", no_wrap=True)


def _table(title: str) -> Table:
    return Table(
        title=title,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title_justify="left",
        min_width=len(title),
    )
